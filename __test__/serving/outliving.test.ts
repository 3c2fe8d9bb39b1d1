// Guests that outlive the process that serves them. That process is a Node of its own, which is
// killed or ends in its own way; a server of this process takes its guests over.
import { EventEmitter, once } from 'node:events'
import { chmodSync, existsSync, mkdirSync, readdirSync, symlinkSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { join } from 'node:path'
import test from 'ava'
import { type Guest, listen, type NotRecovered, type Server } from '../../src/index.js'
import { live, isAsItWas, pages, Place } from '../support/place.js'
import { snapshotFile, temporaryDirectory } from '../support/stage.js'
import { warnings } from '../support/warnings.js'

test('a Node that serves ten guests is killed, and another takes them over', async (t) => {
  const place = new Place(t)
  const { socket, end } = await place.elsewhere()
  const guests = await Promise.all(Array.from({ length: 10 }, () => place.guest(socket)))
  await Promise.all(guests.map(live))
  await end()
  // They ask while nobody answers.
  const waiting = guests.map((guest) => guest.wrong(20, 1, 'source'))

  const server = await place.here()
  t.is(server.recovered.length, 10)
  t.deepEqual(server.notRecovered, [])
  const pids = new Set(server.recovered.map(({ pid }) => pid))
  t.true(guests.every(({ pid }) => pids.has(pid)))
  t.true(server.recovered.every(({ recovered }) => recovered))
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
  const second = place.here({ stateDirWait: true })
  t.is(await one.handOver(), 1)
  t.is((await second).recovered.length, 1)
  await isAsItWas(t, process)
})

test.serial(
  'a server that waits tells how many guests it is ready for, as often as that changes',
  async (t) => {
    const place = new Place(t)
    const one = await place.here()
    const warned = warnings(t)
    const counts = new EventEmitter()
    const [none, some] = [once(counts, '0'), once(counts, '1')]
    const onWaiting = (guests: number) => {
      counts.emit(String(guests))
      throw new Error('not today')
    }
    const second = place.here({ stateDirWait: true, onWaiting })
    await none
    t.is((await warned.next()).message, 'The option onWaiting threw: Error: not today')
    const [process] = await Promise.all([place.guest(one.socket), one.accept()])
    await live(process)
    await some
    t.is(await one.handOver(), 1)
    t.is((await second).recovered.length, 1)
    await isAsItWas(t, process)
  },
)

test('a wait for another server can be given up, and leaves nothing behind', async (t) => {
  const place = new Place(t)
  const one = await place.here()
  const [process] = await Promise.all([place.guest(one.socket), one.accept()])
  await live(process)
  const giveUp = new AbortController()
  const waiting = [AbortSignal.abort(), giveUp.signal].map((signal) =>
    t.throwsAsync(place.here({ stateDirWait: true, signal }), { code: 'ERR_UFFD_ABORTED' }),
  )
  giveUp.abort()
  await Promise.all(waiting)
  t.is(await one.handOver(), 1)
  t.is((await place.here()).recovered.length, 1)
  await isAsItWas(t, process)
})

test('a server on the socket of the one before waits for its end, and has it then', async (t) => {
  const place = new Place(t)
  const one = await place.here()
  const [process] = await Promise.all([place.guest(one.socket), one.accept()])
  await live(process)
  const second = place.here({ socket: one.socket, stateDirWait: true })
  await one.handOver()
  const [other] = await Promise.all([place.guest((await second).socket), (await second).accept()])
  t.is(await other.wrong(0, pages, 'source'), 0)
  await isAsItWas(t, process)
})

test('a server that cannot listen takes nobody over, and can be started again at once', async (t) => {
  const place = new Place(t)
  const guest = await place.left()
  const { socket } = place.options()
  const other = createServer().listen(socket)
  await once(other, 'listening')
  t.teardown(() => other.close())
  await t.throwsAsync(place.here({ socket }), { code: 'ERR_UFFD_SOCKET_IN_USE' })
  const server = await place.here()
  t.is(server.recovered.length, 1)
  await isAsItWas(t, guest)
})

test('a server that is given up at any moment of its start leaves guests where they were', async (t) => {
  const place = new Place(t)
  const guest = await place.left()
  const started: Server[] = []
  for (let turns = 1; ; turns *= 2) {
    const giveUp = new AbortController()
    const starting = place.here({ signal: giveUp.signal }).then((server) => started.push(server))
    for (let turn = 0; turn < turns && started.length === 0; turn++) {
      await new Promise(setImmediate)
    }
    if (started.length > 0) break
    giveUp.abort()
    await t.throwsAsync(starting, { code: 'ERR_UFFD_ABORTED' })
    t.is(ledgers(place).length, 1)
  }
  t.is(started[0]!.recovered.length, 1)
  await isAsItWas(t, guest)
})

test('a server that is given up after it listens, and before anybody has it, leaves guests too', async (t) => {
  const place = new Place(t)
  const guest = await place.left()
  const giveUp = new AbortController()
  const { socket } = place.options()
  // Whoever looks whether it was aborted finds that it just was.
  Object.defineProperty(giveUp.signal, 'aborted', {
    get() {
      const listens = existsSync(socket)
      if (listens) giveUp.abort()
      return listens
    },
  })
  await t.throwsAsync(place.here({ socket, signal: giveUp.signal }), { code: 'ERR_UFFD_ABORTED' })
  t.is(ledgers(place).length, 1)
  t.is((await place.here()).recovered.length, 1)
  await isAsItWas(t, guest)
})

test('a Node whose event loop is blocked, as by a debugger, serves its guests on', async (t) => {
  const place = new Place(t)
  const { child, socket, line, end } = await place.elsewhere(
    'require("fs").writeSync(1, "blocked\\n")\n' +
      'Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0)',
  )
  const guest = await place.guest(socket)
  child.stdin!.write('now\n')
  t.is(await line(), 'blocked')
  await live(guest)
  await isAsItWas(t, guest)
  await end()
  t.is((await place.here()).recovered.length, 1)
  await isAsItWas(t, guest)
})

test('each guest that was left is an event for whoever listens, and the ledger of one that has ended is swept', async (t) => {
  const place = new Place(t)
  const { socket, end } = await place.elsewhere()
  const guests = await Promise.all([1, 2, 3].map(() => place.guest(socket)))
  await Promise.all(guests.map(live))
  await end()
  const before = ledgers(place)
  await guests[2]!.kill()
  const damaged = join(place.stateDir, 'damaged.ledger')
  writeFileSync(damaged, 'no ledger')

  const server = await place.here()
  const [recovered, notRecovered]: [Guest[], NotRecovered[]] = [[], []]
  server.on('recovered', (guest) => recovered.push(guest))
  server.on('notRecovered', (left) => notRecovered.push(left))
  await new Promise(setImmediate)
  t.is(recovered.length, 2)
  t.true(guests.slice(0, 2).every(({ pid }) => recovered.some((guest) => guest.pid === pid)))
  t.deepEqual(recovered, [...server.recovered])
  t.deepEqual(
    notRecovered.map(({ path }) => path),
    [damaged],
  )
  t.is(server.swept.length, 1)
  t.deepEqual([...ledgers(place), ...server.swept].toSorted(), [...before, damaged].toSorted())
})

test.serial('a guest that is not taken over is no secret', async (t) => {
  const place = new Place(t)
  await place.left()
  const seen = warnings(t)
  await place.here({ snapshot: snapshotFile(t, pages + 1) })
  let told
  do told = await seen.next()
  while (told.code !== 'ERR_UFFD_RECOVERY_SNAPSHOT')
  t.regex(told.message, /not the snapshot served here/)
})

test('what is no ledger is refused by code, named, and left alone', async (t) => {
  const place = new Place(t)
  const guest = await place.left()
  const wrong = ['nothing', 'zeros', 'text', 'directory', 'link'].map((what) =>
    join(place.stateDir, `${what}.ledger`),
  )
  const [nothing, zeros, text, directory, link] = wrong
  writeFileSync(nothing!, '')
  writeFileSync(zeros!, new Uint8Array(65_536))
  writeFileSync(text!, 'no ledger at all\n'.repeat(2000))
  mkdirSync(directory!)
  symlinkSync(zeros!, link!)

  const server = await place.here()
  t.deepEqual(server.notRecovered.map(({ path }) => path).toSorted(), wrong.toSorted())
  for (const { path, error } of server.notRecovered) {
    t.is(error.code, 'ERR_UFFD_RECOVERY_LEDGER')
    t.true(error.message.includes(path))
  }
  t.is(server.recovered.length, 1)
  await isAsItWas(t, guest)
  await server.stop()
  t.deepEqual(ledgers(place), wrong.toSorted())
})

test('a released guest leaves no ledger', async (t) => {
  const place = new Place(t)
  const server = await place.here()
  const [process, guest] = await Promise.all([place.guest(server.socket), server.accept()])
  await live(process)
  t.is((await guest.release()).reason, 'released')
  await server.stop()
  t.deepEqual(ledgers(place), [])
  await isAsItWas(t, process)
})

test('a tracked guest is released only by name', async (t) => {
  const place = new Place(t)
  const server = await place.here({ dirtyTracking: 'on' })
  const [process, guest] = await Promise.all([place.guest(server.socket), server.accept()])
  await live(process)
  await t.throwsAsync(guest.release(), { code: 'ERR_UFFD_RELEASE_TRACKED', message: /tracked/ })
  t.is(await process.wrong(40, 4, 'source'), 0)
  t.is((await guest.release({ endsTracking: true })).reason, 'released')
  await server.stop()
  await isAsItWas(t, process)
})

test('a guest of another snapshot is refused by name, and left to its own', async (t) => {
  const place = new Place(t)
  const guest = await place.left()
  const other = await place.here({ snapshot: snapshotFile(t, pages + 1) })
  t.deepEqual(other.recovered, [])
  const [refused] = other.notRecovered
  t.is(refused!.error.code, 'ERR_UFFD_RECOVERY_SNAPSHOT')
  t.true(existsSync(refused!.path))
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

function ledgers({ stateDir }: Place): string[] {
  const names = readdirSync(stateDir).filter((name) => name.endsWith('.ledger'))
  return names.map((name) => join(stateDir, name)).toSorted()
}
