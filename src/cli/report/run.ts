import { Trace } from '../../index.js'
import type { RunFacts } from '../../report/facts.js'
import { reportPage } from '../../report/html.js'
import { adviceFor } from '../../report/advice.js'
import { saveReport } from '../../report/save.js'
import { exitStatus } from '../exit-status.js'
import { lastEndIn } from './stats-file.js'

interface ReportValues {
  readonly into: string
  readonly stats: string | undefined
  readonly prefetch: string | undefined
}

export async function report(file: string, values: ReportValues): Promise<number> {
  const touches = await Trace.load(file)
  const end = values.stats === undefined ? undefined : await lastEndIn(values.stats)
  const facts: RunFacts = {
    title: file,
    snapshot: undefined,
    pageSize: touches.pageSize,
    pages: Math.ceil(Number(touches.snapshot.length) / touches.pageSize),
    end: end && { reason: end.reason, message: end.msg },
    stats: end?.stats,
    touches,
    writesAreTracked: true,
    prefetched:
      values.prefetch === undefined ? undefined : await foreseenBy(values.prefetch, touches),
    touchesArePrefetched: false,
  }
  await saveReport(values.into, reportPage(facts))
  process.stdout.write(`${values.into}: ${adviceFor(facts).text}\n`)
  return exitStatus.ok
}

/** The pages of another trace, which has to be of the same snapshot. */
async function foreseenBy(file: string, touches: Trace) {
  const other = await Trace.load(file)
  // Joining them refuses traces of different snapshots.
  touches.merge('union', [other])
  return { ranges: other.pages }
}
