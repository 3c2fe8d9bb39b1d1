import { existsSync, writeFileSync } from 'node:fs'
import { once } from 'node:events'
import { createServer } from 'node:net'
import { join } from 'node:path'
import { setTimeout } from 'node:timers/promises'
import test from 'ava'
import { type Guest, listen, type ListenOptions, UffdError } from '../../src/index.js'
import { GuestProcess } from '../support/guest.js'
import { descriptors } from '../support/resources.js'
import { snapshotFile, Stage, temporaryDirectory } from '../support/stage.js'
import { warnings } from '../support/warnings.js'

const pages = 64

test('guests come to whoever iterates, each once, until the server is closed', async (t) => {
  const stage = await Stage.open(t, pages)
  const processes = await Promise.all([stage.process(), stage.process(), stage.process()])
  const seen: Guest[] = []
  for await (const guest of stage.server) {
    seen.push(guest)
    if (seen.length === 3) await stage.server.close()
  }
  const pids = (of: readonly { pid: number | undefined }[]) =>
    of.map(({ pid }) => String(pid)).toSorted()
  t.deepEqual(pids(seen), pids(processes))
})

test('many clones of one snapshot are served at once', async (t) => {
  const clones = 10
  const stage = await Stage.open(t, pages)
  const guests = await Promise.all(Array.from({ length: clones }, () => stage.guest()))
  t.is(stage.server.guests.length, clones)
  const wrong = await Promise.all(guests.map(({ process }) => process.wrong(0, pages, 'source')))
  t.deepEqual(
    wrong,
    Array.from({ length: clones }, () => 0),
  )
  await stage.server.stop()
  const ends = await Promise.all(guests.map(({ guest }) => guest.ended))
  t.true(ends.every(({ reason }) => reason === 'stopped'))
})

test('a closed server has no socket, serves its guests, and accepts none', async (t) => {
  const stage = await Stage.open(t, pages)
  const { guest, process } = await stage.guest()
  const closed = once(stage.server, 'close')
  const waiting = t.throwsAsync(stage.server.accept(), { code: 'ERR_UFFD_SERVER_CLOSED' })
  await stage.server.close()
  await stage.server.close()
  await closed
  await waiting
  t.false(existsSync(stage.server.socket))
  await t.throwsAsync(stage.server.accept(), { code: 'ERR_UFFD_SERVER_CLOSED' })
  t.is(await process.wrong(0, pages, 'source'), 0)
  await process.exit()
  t.is((await guest.ended).reason, 'guest-exited')
})

test.serial('a guest that has ended holds no descriptor, though its object is held', async (t) => {
  const stage = await Stage.open(t, pages)
  const held: Guest[] = []
  const end = async () => {
    const { guest, process } = await stage.guest()
    held.push(guest)
    await process.exit()
    await guest.ended
  }
  const eventfds = () => descriptors().filter((link) => link === 'anon_inode:[eventfd]').length
  await end()
  const before = eventfds()
  for (let count = 0; count < 8; count++) await end()
  // Those that ended last may have a few steps left.
  while (eventfds() >= before + 4) await setTimeout(5)
  t.is(held.length, 9)
})

test('disposing of a server stops its guests', async (t) => {
  const stage = await Stage.open(t, pages)
  const { guest } = await stage.guest()
  await stage.server[Symbol.asyncDispose]()
  t.is((await guest.ended).reason, 'stopped')
  t.false(existsSync(stage.server.socket))
})

test('the signal of a server stops it and its guests', async (t) => {
  const abort = new AbortController()
  const stage = await Stage.open(t, pages, { signal: abort.signal })
  const { guest } = await stage.guest()
  abort.abort()
  t.is((await guest.ended).reason, 'stopped')
  await stage.server.close()
  t.false(existsSync(stage.server.socket))
})

test('listening can be aborted before and while it starts', async (t) => {
  const options = {
    socket: join(temporaryDirectory(t), 's'),
    snapshot: snapshotFile(t, pages),
  }
  const code = 'ERR_UFFD_ABORTED'
  const before = listen({ ...options, signal: AbortSignal.abort(new Error('why')) })
  const error = await t.throwsAsync(before, { code, instanceOf: UffdError })
  t.like(error?.cause, { message: 'why' })
  const abort = new AbortController()
  const starting = listen({ ...options, signal: abort.signal })
  abort.abort()
  await t.throwsAsync(starting, { code })
  const server = await listen(options)
  await server.close()
})

test('waiting for a guest has a deadline and can be aborted, and loses no guest', async (t) => {
  const stage = await Stage.open(t, pages)
  const { server } = stage
  await t.throwsAsync(server.accept({ timeoutMs: 1 }), {
    code: 'ERR_UFFD_ACCEPT_TIMEOUT',
    message: /within 1 ms$/,
  })
  const abort = new AbortController()
  const waiting = server.accept({ signal: abort.signal, timeoutMs: Infinity })
  abort.abort()
  await t.throwsAsync(waiting, { code: 'ERR_UFFD_ABORTED' })
  await t.throwsAsync(server.accept({ signal: AbortSignal.abort() }), { code: 'ERR_UFFD_ABORTED' })
  const { guest, process } = await stage.guest()
  t.is(guest.pid, process.pid)
})

test('a guest that is refused is told, with the reason, and the server goes on', async (t) => {
  const stage = await Stage.open(t, pages)
  const refused = once(stage.server, 'refused') as Promise<[UffdError, number]>
  const tooLong = await GuestProcess.start(stage.server.socket, String(pages + 1))
  t.teardown(() => tooLong.kill())
  const [error, unseen] = await refused
  t.true(error instanceof UffdError)
  t.is(error.code, 'ERR_UFFD_HANDOFF_SNAPSHOT')
  t.regex(error.message, /past the end of the snapshot/)
  t.is(unseen, 0)
  const { process } = await stage.guest()
  t.is(await process.wrong(0, pages, 'source'), 0)
})

test.serial(
  'a refusal nobody listens for is a warning, and the reason of a vain wait',
  async (t) => {
    const stage = await Stage.open(t, pages)
    const seen = warnings(t)
    // Longer and longer, until the guest is refused before the wait is over.
    for (let timeoutMs = 250; ; timeoutMs *= 2) {
      const code = 'ERR_UFFD_ACCEPT_TIMEOUT'
      const waiting = t.throwsAsync(stage.server.accept({ timeoutMs }), { code })
      await stage.process('--raw-json', 'hello')
      t.is((await seen.next()).code, 'ERR_UFFD_HANDOFF_JSON')
      const error = await waiting
      if (error?.cause === undefined) continue
      t.like(error.cause, { code: 'ERR_UFFD_HANDOFF_JSON' })
      t.regex(error.message, /1 refused.*not with `\[`/)
      return
    }
  },
)

test('a guest that says nothing is refused after its deadline', async (t) => {
  const stage = await Stage.open(t, pages, { handoffTimeoutMs: 20 })
  const refused = once(stage.server, 'refused') as Promise<[UffdError, number]>
  const silent = GuestProcess.start(stage.server.socket, String(pages), '--silent')
  t.teardown(async () => (await silent.catch(() => {}))?.kill())
  t.is((await refused)[0].code, 'ERR_UFFD_HANDOFF_TIMEOUT')
})

test('what is wrong with snapshot or socket is said with a code', async (t) => {
  const directory = temporaryDirectory(t)
  const snapshot = snapshotFile(t, pages)
  const socket = join(directory, 'uffd.sock')
  const empty = join(directory, 'empty')
  writeFileSync(empty, '')
  const refused = async (options: Partial<ListenOptions>, code: string) => {
    const listening = listen({ socket, snapshot, ...options })
    await t.throwsAsync(listening, { code, instanceOf: UffdError }, JSON.stringify(options))
  }
  await refused({ snapshot: join(directory, 'none') }, 'ERR_UFFD_SNAPSHOT_MISSING')
  await refused({ snapshot: directory }, 'ERR_UFFD_SNAPSHOT_NOT_A_FILE')
  await refused({ snapshot: empty }, 'ERR_UFFD_SNAPSHOT_EMPTY')
  await refused({ socket: empty }, 'ERR_UFFD_SOCKET_NOT_A_SOCKET')
  await refused({ socket: join(directory, 'no', 's') }, 'ERR_UFFD_SOCKET_NO_DIRECTORY')
  const other = createServer().listen(socket)
  await once(other, 'listening')
  await refused({}, 'ERR_UFFD_SOCKET_IN_USE')
  other.close()
})

test('options that make no sense are refused by name', async (t) => {
  const good = { socket: '/tmp/uffd-rs-never.sock', snapshot: '/tmp/uffd-rs-never.mem' }
  const refused = async (options: unknown, field: string, message: RegExp) => {
    const listening = listen(options as ListenOptions)
    const code = 'ERR_UFFD_INVALID_OPTION'
    t.like(await t.throwsAsync(listening, { code, message }), { field })
  }
  await refused(undefined, '', /Expected the options to be an object, got nothing/)
  await refused({ snapshot: 'x' }, 'socket', /"socket" is missing: expected a path/)
  await refused({ socket: 'x' }, 'snapshot', /"snapshot" is missing: expected a path/)
  await refused({ ...good, socket: 'x'.repeat(108) }, 'socket', /at most 107 bytes/)
  await refused({ ...good, snapshot: 'a\0b' }, 'snapshot', /a path/)
  await refused({ ...good, dirtyTracking: true }, 'dirtyTracking', /"auto", "on" or "off"/)
  await refused({ ...good, faultAround: 0 }, 'faultAround', /of pages from 1 to 4294967295/)
  await refused({ ...good, faultAround: 'yes' }, 'faultAround', /true, false or a number of pages/)
  await refused({ ...good, onUnservable: 'ignore' }, 'onUnservable', /"poison", "kill" or "fail"/)
  await refused(
    { ...good, faultDeadlineMs: 0 },
    'faultDeadlineMs',
    /of milliseconds from 1 .*, got 0/,
  )
  await refused({ ...good, handoffTimeoutMs: NaN }, 'handoffTimeoutMs', /got NaN/)
  await refused({ ...good, statsIntervalMs: -1 }, 'statsIntervalMs', /got -1/)
  await refused({ ...good, trace: 1 }, 'trace', /true or false, got 1/)
  await refused({ ...good, shortWaits: 'no' }, 'shortWaits', /true or false/)
  await refused({ ...good, collapse: 1 }, 'collapse', /true or false, got 1/)
  await refused({ ...good, killOnFailure: null }, 'killOnFailure', /true or false/)
  await refused({ ...good, signal: {} }, 'signal', /an AbortSignal/)
  await refused({ ...good, snapshots: 'x' }, 'snapshots', /Did you mean "snapshot"\?/)
})
