import { on, once } from 'node:events'
import test from 'ava'
import { type GuestEnd, type PrefaultReport, type Stats } from '../../src/index.js'
import { Stage } from '../support/stage.js'

const pages = 256

test('a guest reads its snapshot, is described, and ends with its process', async (t) => {
  const stage = await Stage.open(t, pages)
  const { guest, process } = await stage.guest()
  t.is(guest.pid, process.pid)
  t.is(guest.pageSize, 4096)
  t.is(guest.tracking, 'off')
  const [region] = guest.regions
  t.like(region, { size: 4096n * 256n, offset: 0n, firstPage: 0, pageCount: pages })
  t.is(typeof region?.address, 'bigint')
  t.deepEqual(stage.server.guests, [guest])

  t.is(await process.wrong(0, pages, 'source'), 0)
  t.is(await process.exit(), 0)
  const { reason, error, stats } = await guest.ended
  t.is(reason, 'guest-exited')
  t.is(error, undefined)
  t.is(stats.sourcePages, pages)
  t.is(stats.copiedBytes, 4096n * 256n)
  t.is(stats.pages.faulted, pages)
  t.true(stats.faults > 0 && stats.latency.count === stats.faults)
  t.true(stats.latency.max >= stats.latency.p50 && stats.latency.p50 > 0)
  t.deepEqual(stage.server.guests, [])
})

test('several regions are told apart, in the order of the snapshot', async (t) => {
  const stage = await Stage.open(t, pages)
  const { guest } = await stage.guest('--pages', '200,56', '--place', 'falling')
  const [first, second] = guest.regions
  t.like(first, { firstPage: 0, pageCount: 200, offset: 0n })
  t.like(second, { firstPage: 200, pageCount: 56, offset: 200n * 4096n })
  t.is(second!.address + second!.size, first!.address)
})

test('memory that is all installed becomes huge pages where that is asked for', async (t) => {
  // Some 2 MiB of it begin at a multiple of that, wherever it is.
  const stage = await Stage.open(t, 1024, { collapse: true, statsIntervalMs: 20 })
  const { guest, process } = await stage.guest()
  await guest.prefault('all')
  for await (const [stats] of on(guest, 'stats') as AsyncIterable<[Stats]>) {
    // The kernel may have none to give: then it was tried.
    if (stats.collapsed + stats.notCollapsed > 0) break
  }
  t.is(await process.wrong(0, 1024, 'source'), 0)
})

test('memory that is given back reads as zeros and is never prefaulted', async (t) => {
  const stage = await Stage.open(t, pages, { faultAround: false })
  const { guest, process } = await stage.guest()
  await process.ask({ op: 'touch', page: 0, count: 32 })
  await process.ask({ op: 'madvise', page: 8, count: 4 })
  const report = await guest.prefault('all')
  t.deepEqual(report, {
    requested: pages,
    installed: pages - 32,
    fetched: 0,
    present: 28,
    removed: 4,
    failed: 0,
    skipped: 0,
  })
  t.is(await process.wrong(8, 4, 'zeros'), 0)
  t.is(await process.wrong(12, pages - 12, 'source'), 0)
  t.like(await guest.stats(), { removedPages: 4, prefaultPages: pages - 32, zeroPages: 4 })
})

test('read-ahead accounts for every page and installs none', async (t) => {
  const stage = await Stage.open(t, pages, { faultAround: false })
  const { guest, process } = await stage.guest()
  await process.ask({ op: 'touch', page: 0, count: 32 })
  const report = await guest.readAhead('all')
  t.like(report, { requested: pages, installed: 0, fetched: pages - 32, present: 32, failed: 0 })
  t.like(await guest.stats(), { prefaultPages: 0, pages: { unfaulted: pages - 32 } })
  t.is(await process.wrong(0, pages, 'source'), 0)
})

test('page states say of every page what became of it', async (t) => {
  const stage = await Stage.open(t, pages, { faultAround: false })
  const { guest, process } = await stage.guest('--pages', '100,156')
  await process.ask({ op: 'touch', page: 98, count: 4 })
  await process.ask({ op: 'madvise', page: 99, count: 2 })
  const states = await guest.pageStates()
  t.like(states.counts, { unfaulted: pages - 4, faulted: 2, removed: 2, poisoned: 0 })
  const of = [97, 98, 99, 100, 101, 102, 255, 256].map((page) => states.stateOf(page))
  t.deepEqual(of, [
    'unfaulted',
    'faulted',
    'removed',
    'removed',
    'faulted',
    'unfaulted',
    'unfaulted',
    undefined,
  ])
  t.deepEqual(
    states.regions.map((region) => region.states.length),
    [100, 156],
  )
})

test('a trace has each first touch once, in order, and prefaults the next guest', async (t) => {
  const stage = await Stage.open(t, pages, { faultAround: false })
  const first = await stage.guest()
  const touched = [9, 3, 200, 4]
  for (const page of touched) await first.process.ask({ op: 'touch', page })
  await first.process.ask({ op: 'write', page: 50, stamp: 1 })
  await first.process.ask({ op: 'touch', page: 9 })
  const trace = await first.guest.trace()
  t.deepEqual(
    [...trace].map(({ page }) => page),
    [...touched, 50],
  )
  t.deepEqual(
    [...trace].map(({ write }) => write),
    [false, false, false, false, true],
  )
  const times = [...trace].map(({ timeMicros }) => timeMicros)
  t.deepEqual(
    times,
    times.toSorted((a, b) => a - b),
  )

  const next = await stage.guest()
  const requested = trace.pages.reduce((sum, { start, end }) => sum + end - start, 0)
  t.true(requested >= 5)
  t.like(await next.guest.prefault(trace), { requested, installed: requested })
  for (const page of touched) await next.process.ask({ op: 'touch', page })
  t.is((await next.guest.stats()).faults, 0)
})

test('without tracking, every page that could have been written counts as dirty', async (t) => {
  const stage = await Stage.open(t, pages, { faultAround: false, dirtyTracking: 'off' })
  const { guest, process } = await stage.guest()
  await process.ask({ op: 'touch', page: 0, count: 3 })
  t.like(await guest.dirtyPages(), { exact: false, dirtyCount: 3, emptyCount: 0 })
})

test('with tracking, dirty pages are exactly those written', async (t) => {
  const stage = await Stage.open(t, pages, { dirtyTracking: 'on' })
  const { guest, process } = await stage.guest()
  t.is(guest.tracking, 'sync')
  await process.ask({ op: 'touch', page: 0, count: 64 })
  await process.ask({ op: 'write', page: 5, count: 2, stamp: 7 })
  await process.ask({ op: 'madvise', page: 20 })
  const { exact, dirty, dirtyCount, empty, emptyCount } = await guest.dirtyPages()
  t.true(exact)
  t.is(dirtyCount, 2)
  t.is(emptyCount, 1)
  // The portable format: cookie 12346, one container with key 0; values are 16-bit numbers.
  const values = (bytes: Buffer, count: number) =>
    Array.from({ length: count }, (_, index) => bytes.readUInt16LE(16 + 2 * index))
  t.is(dirty.readUInt32LE(0), 12346)
  t.deepEqual(values(dirty, 2), [5, 6])
  t.deepEqual(values(empty, 1), [20])
})

test('stopping says so, once, and again when asked again', async (t) => {
  const stage = await Stage.open(t, pages)
  const { guest, process } = await stage.guest()
  const ends: GuestEnd[] = []
  guest.on('end', (end) => void ends.push(end))
  await process.ask({ op: 'touch', page: 0 })
  const end = await guest.stop()
  t.is(end.reason, 'stopped')
  t.is(await guest.stop(), end)
  t.is(await guest.ended, end)
  await guest[Symbol.asyncDispose]()
  t.deepEqual(ends, [end])
})

test('a guest that is killed ends as a guest that exits', async (t) => {
  const stage = await Stage.open(t, pages)
  const { guest, process } = await stage.guest()
  const ended = once(guest, 'end') as Promise<[GuestEnd]>
  await process.kill()
  t.is((await ended)[0].reason, 'guest-exited')
})

test('after the end, figures and trace are there and commands are refused', async (t) => {
  const stage = await Stage.open(t, pages, { faultAround: false })
  const { guest, process } = await stage.guest()
  await process.ask({ op: 'touch', page: 7, count: 3 })
  const { stats } = await guest.stop()
  t.is(await guest.stats(), stats)
  t.deepEqual(
    [...(await guest.trace())].map(({ page }) => page),
    [7, 8, 9],
  )
  const code = 'ERR_UFFD_GUEST_ENDED'
  await t.throwsAsync(guest.prefault([1]), { code })
  await t.throwsAsync(guest.pageStates(), { code })
  await t.throwsAsync(guest.dirtyPages(), { code })
  await t.throwsAsync(guest.settle(), { code })
})

test('commands that are on their way when the guest ends are answered', async (t) => {
  const stage = await Stage.open(t, pages)
  const { guest } = await stage.guest()
  const answers = Promise.allSettled([
    guest.prefault('all'),
    guest.stop(),
    guest.pageStates(),
    guest.stats(),
    guest.settle(),
  ])
  const [prefault, stop, ...late] = await answers
  t.is(prefault.status, 'fulfilled')
  t.is((prefault as PromiseFulfilledResult<PrefaultReport>).value.requested, pages)
  t.is(stop.status, 'fulfilled')
  for (const answer of late) {
    if (answer.status === 'rejected') t.like(answer.reason, { code: 'ERR_UFFD_GUEST_ENDED' })
  }
  t.pass()
})

test('an aborted prefault counts what it left out', async (t) => {
  const many = 20_000
  const stage = await Stage.open(t, many)
  const { guest } = await stage.guest()
  // More than once if the guest is served so much faster than the signal is heard.
  for (let skipped = 0; skipped === 0;) {
    const before = await guest.prefault('all', { signal: AbortSignal.abort() })
    t.is(before.requested, many)
    skipped = before.skipped
  }

  const abort = new AbortController()
  const running = guest.prefault('all', { signal: abort.signal })
  abort.abort()
  const { requested, installed, present, skipped } = await running
  t.is(requested, many)
  t.is(installed + present + skipped, many)
})

test('a guest without faults in hand is settled', async (t) => {
  const stage = await Stage.open(t, pages)
  const { guest, process } = await stage.guest()
  await process.ask({ op: 'touch', page: 0, count: pages })
  await guest.settle()
  t.is((await guest.stats()).faultsInHand, 0)
  await t.throwsAsync(guest.settle({ signal: AbortSignal.abort('enough') }), {
    code: 'ERR_UFFD_ABORTED',
  })
})

test('pages that make no sense are refused by name', async (t) => {
  const stage = await Stage.open(t, pages)
  const { guest } = await stage.guest()
  const refused = async (wrong: unknown, message: RegExp) => {
    await t.throwsAsync(guest.prefault(wrong as number[]), {
      code: 'ERR_UFFD_INVALID_OPTION',
      message,
    })
  }
  await refused(undefined, /"pages" is missing: expected "all", a trace, or an iterable/)
  await refused('some', /got the string "some"/)
  await refused([0, -1], /pages\[1\].*a page/)
  await refused([0.5], /pages\[0\].*0\.5/)
  await refused([{ start: 4, end: 2 }], /pages\[0\].*start: 4, end: 2/)
  await refused([null], /pages\[0\]/)
  await t.throwsAsync(guest.prefault([{ start: 250, end: 300 }]), {
    code: 'ERR_UFFD_NO_SUCH_PAGES',
    message: /no page 256/,
  })
  await t.throwsAsync(guest.prefault([], { timeout: 1 } as never), {
    code: 'ERR_UFFD_INVALID_OPTION',
  })
  t.like(await guest.prefault([]), { requested: 0 })
})

test('the memory of a guest that cannot be tracked is refused, or not tracked, as asked', async (t) => {
  const stage = await Stage.open(t, pages, { dirtyTracking: 'auto' })
  const { guest } = await stage.guest('--features', 'remove,wp', '--register', 'wp')
  t.not(guest.tracking, 'off')
})
