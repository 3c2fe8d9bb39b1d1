import { copyFileSync, renameSync, writeFileSync } from 'node:fs'
import test from 'ava'
import native from '#native'
import { Trace, type TraceEntry } from '../../src/index.js'
import { fromWords, toWords } from '../../src/trace/entries.js'
import { snapshotFile, Stage } from '../support/stage.js'
import { touches } from '../support/touches.js'

const word = (page: bigint, write: bigint, fill: bigint) => page | (write << 48n) | (fill << 49n)

test('entries and the words of the native part are the same', (t) => {
  const words = BigUint64Array.of(word(5n, 0n, 0n), 1500n, word(2n ** 32n, 1n, 2n), 2n ** 40n)
  const entries: TraceEntry[] = [
    { page: 5, write: false, filledWith: 'source', timeMicros: 1.5 },
    { page: 2 ** 32, write: true, filledWith: 'zeros', timeMicros: 2 ** 40 / 1000 },
  ]
  t.deepEqual(fromWords(words), entries)
  t.deepEqual(toWords(entries), words)
  const fills = [0n, 1n, 2n, 3n].map((fill) => fromWords(BigUint64Array.of(fill << 49n, 0n))[0])
  t.deepEqual(
    fills.map((one) => one?.filledWith),
    ['source', 'source-zeros', 'zeros', 'present'],
  )
})

test('the trace of a guest is of its snapshot and page size, and prefaults the next', async (t) => {
  const stage = await Stage.open(t, 64, { faultAround: false })
  const first = await stage.guest()
  for (const page of [9, 2, 40]) await first.process.ask({ op: 'touch', page, count: 1 })
  const trace = await first.guest.trace()
  t.is(trace.pageSize, 4096)
  t.is(trace.snapshot.length, 64n * 4096n)
  t.true(await trace.belongsTo(stage.server.snapshot))
  t.true(await first.guest.accepts(trace))

  const next = await stage.guest()
  t.like(await next.guest.prefault(trace), { requested: 3, installed: 3 })
  t.like(await next.guest.readAhead(trace), { requested: 3, present: 3 })
})

test('a trace of another snapshot or page size is refused, and nothing is installed', async (t) => {
  const stage = await Stage.open(t, 1024)
  const { guest } = await stage.guest()
  const { snapshot } = stage.server
  const shorter = snapshotFile(t, 1023)
  const other = `${shorter}.other`
  native.writeGuestSnapshot({ path: other, pages: 1024, seed: 9 })
  const wrong = [
    [await Trace.record(touches(1), { snapshot: shorter, pageSize: 4096 }), /of 4190208 bytes/],
    [await Trace.record(touches(1), { snapshot: other, pageSize: 4096 }), /other contents/],
    [await Trace.record(touches(1), { snapshot, pageSize: 2097152 }), /2 MiB.* 4 KiB here/],
  ] as const
  for (const [trace, message] of wrong) {
    t.false(await guest.accepts(trace))
    const refusal = { code: 'ERR_UFFD_TRACE_WRONG_SNAPSHOT', message }
    await t.throwsAsync(guest.prefault(trace), refusal)
    await t.throwsAsync(guest.readAhead(trace), refusal)
  }
  t.is((await guest.pageStates()).counts.faulted, 0)

  const copy = `${shorter}.copy`
  copyFileSync(snapshot, copy)
  const right = await Trace.record(touches(1), { snapshot: copy, pageSize: 4096 })
  t.like(await guest.prefault(right), { installed: 1 })
})

test('a guest that has ended tells its trace after its server is gone', async (t) => {
  const stage = await Stage.open(t, 64, { faultAround: false })
  const { guest, process } = await stage.guest()
  const { snapshot } = stage.server
  await process.ask({ op: 'touch', page: 3, count: 2 })
  await process.exit()
  await guest.ended
  await stage.server.stop()
  const trace = await guest.trace()
  t.deepEqual(
    Array.from(trace, ({ page }) => page),
    [3, 4],
  )
  t.true(await trace.belongsTo(snapshot))
})

test('a trace is not told to be of what replaced the snapshot afterwards', async (t) => {
  const stage = await Stage.open(t, 64, { faultAround: false })
  const { guest, process } = await stage.guest()
  const { snapshot } = stage.server
  await process.ask({ op: 'touch', page: 3, count: 1 })

  // While it is served, it is told by the file that is open.
  const copy = `${snapshot}.copy`
  copyFileSync(snapshot, copy)
  native.writeGuestSnapshot({ path: `${snapshot}.new`, pages: 64, seed: 9 })
  renameSync(`${snapshot}.new`, snapshot)
  const trace = await guest.trace()
  t.true(await trace.belongsTo(copy))
  t.false(await trace.belongsTo(snapshot))
  await process.exit()
  await guest.ended
})

test('where nobody asked before the end, a replaced snapshot is told', async (t) => {
  const stage = await Stage.open(t, 64, { faultAround: false })
  const { guest, process } = await stage.guest()
  const { snapshot } = stage.server
  await process.ask({ op: 'touch', page: 3, count: 1 })
  await process.exit()
  await guest.ended
  await stage.server.stop()
  writeFileSync(`${snapshot}.new`, 'another')
  renameSync(`${snapshot}.new`, snapshot)
  await t.throwsAsync(guest.trace(), {
    code: 'ERR_UFFD_TRACE_SNAPSHOT',
    message: /changed or replaced since it was served/,
  })
})
