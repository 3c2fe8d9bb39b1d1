import { Trace } from '../../index.js'
import { exitStatus } from '../exit-status.js'
import { humanOutput } from '../output/human.js'
import { jsonOutput } from '../output/json.js'
import type { Output } from '../output/output.js'
import { checkServing, leavesGuests } from './ending.js'
import type { Stop } from './control.js'
import { warnOfHost } from './host.js'
import { type ServingValues, statsEvery } from './options.js'
import { ReportFiles } from './report-files.js'
import { Service } from './service.js'
import { onSignals } from './signals.js'
import { Tally } from './tally.js'
import { TraceFile } from './trace-file.js'

/** What a command that serves guests works with. */
export interface Serving {
  readonly output: Output
  readonly tally: Tally
  readonly service: Service
  /** The trace to prefetch. */
  readonly prefetch: Trace | undefined
  /** Fires when a signal asks for the end; the signal is its reason. */
  readonly ending: AbortSignal
  /** Has it fire. */
  readonly stop: Stop
}

/**
 * Serves guests of a snapshot until the work is done or a signal asks for the end; resolves with
 * the exit status.
 */
export async function serving(
  values: ServingValues,
  snapshot: string,
  work: (serving: Serving) => Promise<void>,
): Promise<number> {
  checkServing(values)
  const level = values['log-level'] ?? 'info'
  const asJson = values.json ?? !process.stdout.isTTY
  const output = asJson ? jsonOutput(level) : humanOutput(level)
  try {
    return await run(values, snapshot, output, work)
  } finally {
    output.end()
  }
}

async function run(
  values: ServingValues,
  snapshot: string,
  output: Output,
  work: (serving: Serving) => Promise<void>,
): Promise<number> {
  const prefetch =
    values.prefetch === undefined ? undefined : await Trace.load(values.prefetch, { snapshot })
  const traceFile =
    values.trace === undefined ? undefined : await TraceFile.open(values.trace, prefetch)
  const reportFiles =
    values.report === undefined ? undefined : await ReportFiles.open(values.report, snapshot)
  warnOfHost(output)

  const tally = new Tally()
  const withStats = statsEvery(values) !== undefined
  const { release } = values
  const service = new Service({
    output,
    tally,
    traceFile,
    reportFiles,
    prefetch,
    withStats,
    release,
  })
  const ending = new AbortController()
  const stop: Stop = (signal, by) => {
    if (ending.signal.aborted) return
    const leaves = leavesGuests(values, signal)
    const whom = values.guardian ? 'the guardian' : 'the next server'
    const what = leaves ? `leaving guests to ${whom}` : 'stopping'
    const text =
      by === undefined
        ? `${signal}: ${what}; once more to end at once`
        : `Told to stop over the control socket: ${what}`
    const facts = { event: 'stopping', ...(by === undefined ? { signal } : { by }) }
    output.tell('info', { ...facts, leavesGuests: leaves }, text)
    ending.abort(signal)
  }
  const forget = onSignals(stop)
  try {
    await work({ output, tally, service, prefetch, ending: ending.signal, stop })
  } catch (error) {
    if (!ending.signal.aborted) throw error
  } finally {
    forget()
  }
  tally.summarise(output)
  return tally.hasFailed ? exitStatus.failed : exitStatus.ok
}
