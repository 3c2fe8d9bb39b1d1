import { statSync } from 'node:fs'
import { basename, dirname, join, relative } from 'node:path'
import { pathToFileURL } from 'node:url'
import test from 'ava'
import { listen, Trace } from '../../src/index.js'
import { deadlineMs, GuestProcess } from '../support/guest.js'
import { snapshotFile, Stage, temporaryDirectory } from '../support/stage.js'
import { touches } from '../support/touches.js'
import { warnings } from '../support/warnings.js'

const pageSize = 4096

test('the socket belongs to whom it is for, and only they may connect', async (t) => {
  const stage = await Stage.open(t, 16, { socketOwner: { uid: 123, gid: 456 }, socketMode: 0o620 })
  const { uid, gid, mode } = statSync(stage.server.socket)
  t.deepEqual([uid, gid, mode & 0o7777], [123, 456, 0o620])
  const { guest } = await stage.guest()
  t.is(guest.uid, process.getuid!())
  t.is(guest.gid, process.getgid!())
})

test('URLs of files and relative paths are made absolute', async (t) => {
  t.timeout(deadlineMs)
  const snapshot = snapshotFile(t, 16)
  const socket = join(dirname(snapshot), 'a b.sock')
  const byUrl = await listen({ socket: pathToFileURL(socket), snapshot: pathToFileURL(snapshot) })
  t.is(byUrl.socket, socket)
  t.is(byUrl.snapshot, snapshot)
  await byUrl.stop()
  const server = await listen({ socket, snapshot: relative('.', snapshot) })
  t.is(server.snapshot, snapshot)
  await server.stop()
})

test('each guest begins with the trace of the server', async (t) => {
  t.timeout(deadlineMs)
  const snapshot = snapshotFile(t, 64)
  const trace = await Trace.record(touches(9, 3), { snapshot, pageSize })
  const file = `${snapshot}.trace`
  await trace.save(file)
  for (const [prefetch, prefetchMode, report, faulted] of [
    [trace, undefined, { requested: 2, installed: 2 }, 2],
    [file, 'install', { requested: 2, installed: 2 }, 2],
    [pathToFileURL(file), 'fetch', { requested: 2, fetched: 2, installed: 0 }, 0],
  ] as const) {
    const socket = join(temporaryDirectory(t), 's.sock')
    const server = await listen({ socket, snapshot, prefetch, prefetchMode })
    t.teardown(() => server.stop())
    const [child, guest] = await Promise.all([
      GuestProcess.start(socket, '64'),
      server.accept({ timeoutMs: deadlineMs }),
    ])
    t.teardown(() => child.kill())
    t.like(await guest.prefetched, report)
    t.is((await guest.pageStates()).counts.faulted, faulted)
    t.is(await child.wrong(0, 64, 'source'), 0)
  }
})

test('without a trace nothing is prefetched', async (t) => {
  const stage = await Stage.open(t, 16)
  t.is((await stage.guest()).guest.prefetched, undefined)
})

test('the trace of another snapshot is refused before there is a socket', async (t) => {
  const snapshot = snapshotFile(t, 16)
  const other = snapshotFile(t, 17)
  const trace = await Trace.record(touches(1), { snapshot: other, pageSize })
  await trace.save(`${other}.trace`)
  const socket = join(dirname(snapshot), 's.sock')
  for (const prefetch of [trace, `${other}.trace`]) {
    await t.throwsAsync(listen({ socket, snapshot, prefetch }), {
      code: 'ERR_UFFD_TRACE_WRONG_SNAPSHOT',
    })
    t.throws(() => statSync(socket), { code: 'ENOENT' })
  }
})

test.serial('a guest that the trace does not suit is served, and that is told', async (t) => {
  const snapshot = snapshotFile(t, 512)
  const trace = await Trace.record(touches(0), { snapshot, pageSize: 2097152 })
  const told = warnings(t)
  const stage = await Stage.open(t, 512)
  const server = await listen({ socket: `${stage.server.socket}.2`, snapshot, prefetch: trace })
  t.teardown(() => server.stop())
  const [child, guest] = await Promise.all([
    GuestProcess.start(server.socket, '512'),
    server.accept({ timeoutMs: deadlineMs }),
  ])
  t.teardown(() => child.kill())
  const code = 'ERR_UFFD_TRACE_WRONG_SNAPSHOT'
  await t.throwsAsync(guest.prefetched!, { code, message: /pages of 2 MiB/ })
  t.is((await told.next()).code, code)
  t.is(await child.wrong(0, 512, 'source'), 0)
})

test('dirty and empty pages are ranges as well', async (t) => {
  const stage = await Stage.open(t, 64, { faultAround: false, dirtyTracking: 'on' })
  const { guest, process: child } = await stage.guest()
  for (const page of [3, 4, 5, 9]) await child.ask({ op: 'write', page, stamp: 1 })
  await child.ask({ op: 'madvise', page: 20, count: 3 })
  await guest.settle()
  const pages = await guest.dirtyPages()
  t.deepEqual(
    [...pages.dirtyRanges()],
    [
      { start: 3, end: 6 },
      { start: 9, end: 10 },
    ],
  )
  t.deepEqual([...pages.emptyRanges()], [{ start: 20, end: 23 }])
})

test('an error that comes with an event names who called', async (t) => {
  const snapshot = snapshotFile(t, 16)
  const socket = join(dirname(snapshot), 's.sock')
  const here = new RegExp(basename(import.meta.url))
  const server = await listen({ socket, snapshot })
  t.teardown(() => server.stop())
  for (const wrong of [
    () => listen({ socket, snapshot }),
    () => listen({ socket: `${socket}.2`, snapshot: `${snapshot}.none` }),
    () => server.accept({ timeoutMs: 1 }),
  ]) {
    const error = await t.throwsAsync(async () => void (await wrong()))
    t.regex(error.stack!, here)
  }
})
