// The sentence of advice, by runs that deserve it: facts made up where a run would have to break
// the host for it, and guests where not.
import { truncateSync } from 'node:fs'
import test, { type ExecutionContext } from 'ava'
import { GuestReport, type PrefaultReport, type Stats, type TraceEntry } from '../../src/index.js'
import { accountOf } from '../../src/report/account.js'
import { adviceFor } from '../../src/report/advice.js'
import { type RunFacts } from '../../src/report/facts.js'
import { Stage } from '../support/stage.js'

const pages = 1024

const touch = (page: number, filledWith: TraceEntry['filledWith'] = 'source'): TraceEntry => {
  return { page, write: false, filledWith, timeMicros: page }
}

const touches = (count: number, from = 0) =>
  Array.from({ length: count }, (_, index) => touch(from + index))

const plain: RunFacts = {
  title: 'a run',
  snapshot: undefined,
  pageSize: 4096,
  pages,
  writesAreTracked: true,
  touchesArePrefetched: true,
}

const stats = (figures: Partial<Stats>) => ({ faults: 1000, ...figures }) as Stats

test('the most pressing comes first', (t) => {
  const advice = (facts: Partial<RunFacts>) => adviceFor({ ...plain, ...facts }).kind
  t.is(advice({ stats: stats({ failedFetches: 1, outOfMemory: 9 }) }), 'snapshot-unreadable')
  t.is(advice({ stats: stats({ poisonedPages: 1 }) }), 'snapshot-unreadable')
  t.is(advice({ stats: stats({ outOfMemory: 1, fetches: 900 }) }), 'out-of-memory')
  t.is(advice({ stats: stats({ fetches: 900 }), touches: touches(500) }), 'cold-snapshot')
  t.is(advice({ stats: stats({ fetches: 10 }), touches: touches(500) }), 'prefetch')
  t.is(advice({ stats: stats({}), touches: touches(10) }), 'nothing')
  t.is(advice({}), 'nothing')
})

test('a prefetch is judged by what it missed, what it was late for, and what was for nothing', (t) => {
  const prefetched = (
    start: number,
    end: number,
    waited: TraceEntry[],
    more: Partial<RunFacts> = {},
  ) => {
    const report = { removed: 0, failed: 0, skipped: 0 } as PrefaultReport
    return { ...plain, prefetched: { ranges: [{ start, end }], report }, touches: waited, ...more }
  }
  t.is(adviceFor(prefetched(0, 500, [])).kind, 'nothing')
  t.is(adviceFor(prefetched(0, 500, touches(400, 600))).kind, 'prefetch-more')
  t.is(adviceFor(prefetched(0, 500, touches(400))).kind, 'prefetch-earlier')
  const another = { touchesArePrefetched: false }
  t.is(adviceFor(prefetched(0, 500, touches(500), another)).kind, 'nothing')
  t.is(adviceFor(prefetched(0, 500, touches(100), another)).kind, 'prefetch-less')
  t.deepEqual(accountOf(prefetched(0, 500, touches(100, 450), another)), {
    asked: 500,
    late: 0,
    missed: 50,
    ready: 500,
    forNothing: 450,
    mayBeMore: false,
  })
  // Memory that was given back, and pages that were there, are none of the prefetch's business.
  const others = [...touches(3, 700), touch(600, 'zeros'), touch(601, 'present')]
  t.like(accountOf(prefetched(0, 500, others)), { missed: 3, late: 0, ready: 500 })
})

/** A guest that was seen to its end, and what is known of its run. */
async function run(
  t: ExecutionContext,
  work: (stage: { report: GuestReport } & Awaited<ReturnType<Stage['guest']>>) => Promise<unknown>,
): Promise<RunFacts> {
  const stage = await Stage.open(t, pages, { faultAround: false })
  const served = await stage.guest()
  const report = new GuestReport(served.guest)
  await work({ report, ...served })
  await served.process.kill()
  return await report.facts()
}

test('a guest that waited for each page is to be prefetched', async (t) => {
  const facts = await run(t, ({ process }) => process.wrong(0, 200, 'source'))
  const { kind, text } = adviceFor(facts)
  t.is(kind, 'prefetch')
  t.regex(text, /waited for 200 pages/)
})

test('a guest that touched little needs nothing', async (t) => {
  const facts = await run(t, ({ process }) => process.wrong(0, 20, 'source'))
  t.is(adviceFor(facts).kind, 'nothing')
})

test('a guest that uses again what it gives back is to give back less', async (t) => {
  const facts = await run(t, async ({ process }) => {
    await process.ask({ op: 'madvise', page: 0, count: 300 })
    await process.wrong(0, 300, 'zeros')
  })
  t.is(adviceFor(facts).kind, 'given-back-and-used-again')
})

test('a trace of other pages than a guest needs is to be recorded again', async (t) => {
  const facts = await run(t, async ({ process, guest, report }) => {
    const ranges = [{ start: 0, end: 100 }]
    report.prefetched(ranges, await guest.prefault(ranges))
    await process.wrong(0, 100, 'source')
    await process.wrong(500, 100, 'source')
  })
  t.is(adviceFor(facts).kind, 'prefetch-more')
  t.like(accountOf(facts), { asked: 100, ready: 100, late: 0, missed: 100 })
})

test('a prefetch after the fact came too late', async (t) => {
  const facts = await run(t, async ({ process, guest, report }) => {
    const ranges = [{ start: 0, end: 100 }]
    await process.wrong(0, 100, 'source')
    report.prefetched(ranges, await guest.prefault(ranges))
  })
  t.is(adviceFor(facts).kind, 'prefetch-earlier')
})

test('a trace of pages that another run did not need asks for less', async (t) => {
  const stage = await Stage.open(t, pages, { faultAround: false })
  const trace = async (count: number) => {
    const { guest, process } = await stage.guest()
    await process.wrong(0, count, 'source')
    await process.kill()
    await guest.ended
    return await guest.trace()
  }
  const [large, small] = [await trace(400), await trace(100)]
  const facts = {
    ...plain,
    touches: small,
    prefetched: { ranges: large.pages },
    touchesArePrefetched: false,
  }
  t.is(adviceFor(facts).kind, 'prefetch-less')
})

test('a snapshot that cannot be read is what it says first', async (t) => {
  const stage = await Stage.open(t, pages, { faultAround: false, faultDeadlineMs: 100 })
  const { guest, process } = await stage.guest()
  const report = new GuestReport(guest)
  truncateSync(stage.server.snapshot, 4096)
  const poisoned = new Promise((resolve) => guest.once('notice', resolve))
  const reading = process.wrong(512, 1, 'source').catch(() => {})
  await poisoned
  await process.kill()
  await reading
  t.is(adviceFor(await report.facts()).kind, 'snapshot-unreadable')
})
