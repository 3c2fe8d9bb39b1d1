// Guests that outlive the process that serves them. That process is a Node of its own, which is
// killed or ends in its own way; a server of this process takes its guests over.
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { chmodSync, mkdirSync, readdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import test, { type ExecutionContext } from 'ava'
import { listen, type ListenOptions, type Server } from '../../src/index.js'
import { deadlineMs, GuestProcess } from '../support/guest.js'
import { snapshotFile, temporaryDirectory } from '../support/stage.js'

const index = fileURLToPath(new URL('../../dist/cjs/index.js', import.meta.url))

const pages = 64

/** What outlives every server of a test. */
class Place {
  readonly stateDir: string
  readonly #t: ExecutionContext
  readonly #snapshot: string
  #sockets = 0

  constructor(t: ExecutionContext) {
    t.timeout(deadlineMs)
    this.#t = t
    this.stateDir = join(temporaryDirectory(t), 'state')
    this.#snapshot = snapshotFile(t, pages)
  }

  options(): ListenOptions {
    const socket = join(temporaryDirectory(this.#t), `${this.#sockets++}.sock`)
    return { socket, snapshot: this.#snapshot, stateDir: this.stateDir }
  }

  /** A server in a Node of its own; `then` is what it does once a guest was touched. */
  async elsewhere(then = ''): Promise<{ child: ChildProcess; socket: string }> {
    const options = this.options()
    const script = `
      const { listen } = require(${JSON.stringify(index)})
      listen(${JSON.stringify(options)}).then(async (server) => {
        console.log('ready')
        process.stdin.once('data', () => { ${then} })
      })`
    const child = spawn(process.execPath, ['-e', script], { stdio: ['pipe', 'pipe', 'pipe'] })
    this.#t.teardown(() => child.kill('SIGKILL'))
    child.stderr.resume()
    await once(createInterface({ input: child.stdout }), 'line')
    return { child, socket: options.socket }
  }

  async guest(socket: string): Promise<GuestProcess> {
    const guest = await GuestProcess.start(socket, String(pages))
    this.#t.teardown(() => guest.kill())
    return guest
  }

  /** A server here. */
  async here(more: Partial<ListenOptions> = {}): Promise<Server> {
    const server = await listen({ ...this.options(), ...more })
    this.#t.teardown(() => server.stop())
    return server
  }
}

/** Writes to some pages, and gives others back. */
async function live(guest: GuestProcess): Promise<void> {
  await guest.ask({ op: 'write', page: 3, count: 2, stamp: 9 })
  await guest.ask({ op: 'madvise', page: 8, count: 4 })
}

/** Nothing of that is lost, and all the rest is the snapshot. */
async function isAsItWas(t: ExecutionContext, guest: GuestProcess): Promise<void> {
  t.is(await guest.wrong(0, 3, 'source'), 0)
  const op = { op: 'verify', page: 3, count: 2, expect: [{ stamp: 9 }] }
  t.is((await guest.ask<{ wrong: number }>(op)).wrong, 0)
  t.is(await guest.wrong(8, 4, 'zeros'), 0)
  t.is(await guest.wrong(12, pages - 12, 'source'), 0)
}

test('a Node that serves ten guests is killed, and another takes them over', async (t) => {
  const place = new Place(t)
  const { child, socket } = await place.elsewhere()
  const guests = await Promise.all(Array.from({ length: 10 }, () => place.guest(socket)))
  await Promise.all(guests.map(live))
  child.kill('SIGKILL')
  await once(child, 'exit')
  // They ask while nobody answers.
  const waiting = guests.map((guest) => guest.wrong(20, 1, 'source'))

  const server = await place.here()
  t.is(server.recovered.length, 10)
  t.deepEqual(server.notRecovered, [])
  const pids = new Set(server.recovered.map(({ pid }) => pid))
  t.true(guests.every(({ pid }) => pids.has(pid)))
  t.is(new Set(server.recovered.map(({ id }) => id)).size, 10)
  t.deepEqual(
    await Promise.all(waiting),
    guests.map(() => 0),
  )
  await Promise.all(guests.map((guest) => isAsItWas(t, guest)))
  t.is(await server.accept(), server.recovered[0]!)
  const ends = await Promise.all(server.recovered.map((guest) => guest.stop()))
  t.deepEqual([...new Set(ends.map(({ reason }) => reason))], ['stopped'])
})

for (const [how, then, status] of [
  ['calls process.exit', 'process.exit(0)', 0],
  ['throws', 'throw new Error("on purpose")', 1],
  ['hands over', 'server.handOver().then((count) => process.exit(count))', 1],
] as const) {
  test(`a Node that ${how} leaves its guest to the next`, async (t) => {
    const place = new Place(t)
    const { child, socket } = await place.elsewhere(then)
    const guest = await place.guest(socket)
    await live(guest)
    child.stdin!.write('now\n')
    const [code] = (await once(child, 'exit')) as [number | null]
    t.is(code, status)
    const server = await place.here()
    t.is(server.recovered.length, 1)
    await isAsItWas(t, guest)
  })
}

test('guests are handed over from server to server, and keep their id', async (t) => {
  const place = new Place(t)
  let server = await place.here()
  const [process, first] = await Promise.all([place.guest(server.socket), server.accept()])
  await live(process)
  for (let round = 0; round < 3; round++) {
    const [before] = server.guests
    t.is(await server.handOver(), 1)
    t.is((await before!.ended).reason, 'handed-over')
    server = await place.here()
    t.is(server.recovered[0]!.id, first.id)
  }
  await isAsItWas(t, process)
  t.is(server.recovered[0]!.owner, 'peer')
})

test('two servers do not share a state directory: the second is refused, or waits', async (t) => {
  const place = new Place(t)
  const one = await place.here()
  const [process] = await Promise.all([place.guest(one.socket), one.accept()])
  await live(process)
  await t.throwsAsync(place.here(), { code: 'ERR_UFFD_STATE_DIR_IN_USE' })
  const abort = AbortSignal.abort()
  await t.throwsAsync(place.here({ stateDirWait: true, signal: abort }), {
    code: 'ERR_UFFD_ABORTED',
  })
  const second = place.here({ stateDirWait: true })
  t.is(await one.handOver(), 1)
  t.is((await second).recovered.length, 1)
  await isAsItWas(t, process)
})

test('a released guest needs no server', async (t) => {
  const place = new Place(t)
  const server = await place.here()
  const [process, guest] = await Promise.all([place.guest(server.socket), server.accept()])
  await live(process)
  t.is((await guest.release()).reason, 'released')
  await server.stop()
  t.deepEqual(readdirSync(place.stateDir), ['server.lock'])
  await isAsItWas(t, process)
  await t.throwsAsync(guest.release(), { code: 'ERR_UFFD_GUEST_ENDED' })
})

test('a tracked guest is released only by name, and one that is given up is served on', async (t) => {
  const place = new Place(t)
  const server = await place.here({ dirtyTracking: 'on' })
  const [process, guest] = await Promise.all([place.guest(server.socket), server.accept()])
  await live(process)
  await t.throwsAsync(guest.release(), { code: 'ERR_UFFD_NOT_RELEASED', message: /tracked/ })
  const signal = AbortSignal.abort()
  await t.throwsAsync(guest.release({ endsTracking: true, signal }), {
    code: 'ERR_UFFD_NOT_RELEASED',
    message: /cancelled/,
  })
  t.is(await process.wrong(40, 4, 'source'), 0)
  t.is((await guest.release({ endsTracking: true })).reason, 'released')
  await isAsItWas(t, process)
})

test('a guest of another snapshot is refused by name, and left to its own', async (t) => {
  const place = new Place(t)
  const { child, socket } = await place.elsewhere()
  const guest = await place.guest(socket)
  await live(guest)
  child.kill('SIGKILL')
  await once(child, 'exit')
  const other = await place.here({ snapshot: snapshotFile(t, pages + 1) })
  t.deepEqual(other.recovered, [])
  t.deepEqual(
    other.notRecovered.map(({ code }) => code),
    ['ERR_UFFD_RECOVERY_SNAPSHOT'],
  )
  await other.stop()
  t.is((await place.here()).recovered.length, 1)
  await isAsItWas(t, guest)
})

test('a directory that cannot keep guests is refused by name', async (t) => {
  const place = new Place(t)
  const directory = temporaryDirectory(t)
  const file = join(directory, 'file')
  writeFileSync(file, '')
  await t.throwsAsync(place.here({ stateDir: file }), {
    code: 'ERR_UFFD_STATE_DIR',
    message: /file/,
  })
  const open = join(directory, 'open')
  mkdirSync(open)
  chmodSync(open, 0o777)
  await t.throwsAsync(place.here({ stateDir: open }), {
    code: 'ERR_UFFD_STATE_DIR',
    message: /0700/,
  })
  await t.throwsAsync(place.here({ stateDir: join(directory, 'no', 'where') }), {
    code: 'ERR_UFFD_STATE_DIR',
  })
  const server = await listen({ ...place.options(), stateDir: undefined })
  t.teardown(() => server.stop())
  await t.throwsAsync(server.handOver(), { code: 'ERR_UFFD_NO_STATE_DIR' })
})
