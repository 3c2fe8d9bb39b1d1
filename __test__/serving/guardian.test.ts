// Guests with a guardian: a native process that serves them while no server does.
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmdirSync,
  statSync,
  truncateSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { setTimeout } from 'node:timers/promises'
import test, { type ExecutionContext } from 'ava'
import { type GuardianOptions, type Server } from '../../src/index.js'
import { freeze } from '../support/frozen.js'
import { type GuestProcess } from '../support/guest.js'
import { live, isAsItWas, pages, Place } from '../support/place.js'
import { managerProgram } from '../support/service-manager.js'
import { temporaryDirectory } from '../support/stage.js'

interface Elsewhere {
  readonly guardian?: boolean | GuardianOptions
  readonly by?: readonly string[]
  /** What it does once a guest was touched. */
  readonly touched?: string
}

/** A server with a guardian in a Node of its own, and a guest that is guarded. */
async function guardedElsewhere(
  place: Place,
  { guardian: how = true, by = [], touched = '' }: Elsewhere = {},
) {
  const server = await place.elsewhere(touched, { guardian: how }, by)
  const guest = await place.guest(server.socket)
  const [word, pid] = (await server.line()).split(' ')
  if (word !== 'guarded') throw new Error(`${word} instead of guarded`)
  await live(guest)
  return { ...server, guest, guardian: Number(pid) }
}

/** The same here. */
async function guardedHere(
  t: ExecutionContext,
  place: Place,
): Promise<{ server: Server; guest: GuestProcess }> {
  const server = await place.here({ guardian: true })
  const guarded = once(server, 'guarded')
  const guest = await place.guest(server.socket)
  const [id] = (await guarded) as [string]
  t.deepEqual(server.guardian!.guarded, [id])
  await live(guest)
  return { server, guest }
}

/** Waits until a process is gone, or waits for nobody but its parent. */
async function hasEnded(pid: number): Promise<void> {
  const path = `/proc/${pid}/stat`
  while (existsSync(path)) {
    try {
      if (/^\d+ \(.*\) Z/.test(readFileSync(path, 'utf8'))) return
    } catch {
      return
    }
    await setTimeout(5)
  }
}

test('a server with a guardian is killed, the guest is served on, and the next server has it back', async (t) => {
  const place = new Place(t)
  const { guest, guardian, end } = await guardedElsewhere(place)
  await end()
  // No server is there.
  await isAsItWas(t, guest)
  await guest.ask({ op: 'write', page: 30, count: 2, stamp: 11 })

  const server = await place.here({ guardian: true })
  t.is(server.guardian!.pid, guardian)
  t.deepEqual(server.notRecovered, [])
  t.is(server.recovered[0]!.pid, guest.pid)
  const verify = { op: 'verify', page: 30, count: 2, expect: [{ stamp: 11 }] }
  t.is((await guest.ask<{ wrong: number }>(verify)).wrong, 0)
  await guest.kill()
  await server.stop()
  await hasEnded(guardian)
})

test('guests that are handed over are served by the guardian, whoever comes next', async (t) => {
  const place = new Place(t)
  const { server, guest } = await guardedHere(t, place)
  const { pid } = server.guardian!
  t.is(await server.handOver(), 1)
  t.is(await guest.wrong(40, 4, 'source'), 0)
  // This one starts none, and has guests back from the one that is there.
  const next = await place.here()
  t.is(next.guardian, undefined)
  t.is(next.recovered.length, 1)
  await isAsItWas(t, guest)
  await next.stop()
  await hasEnded(pid!)
})

test('guests are handed over to another guardian where theirs was killed right before', async (t) => {
  const place = new Place(t)
  const { server, guest } = await guardedHere(t, place)
  process.kill(server.guardian!.pid!, 'SIGKILL')
  t.is(await server.handOver(), 1)
  await isAsItWas(t, guest)
  await guest.kill()
})

test('guests are not handed over to a guardian that is frozen, and are when it goes on', async (t) => {
  const place = new Place(t)
  const { server, guest } = await guardedHere(t, place)
  const { pid } = server.guardian!
  await freeze(pid!)
  await t.throwsAsync(server.handOver(), {
    code: 'ERR_UFFD_GUARDIAN_SILENT',
    message: new RegExp(`process ${pid}\\b.*SIGCONT`),
  })
  t.is(server.guests.length, 1)
  await isAsItWas(t, guest)
  process.kill(pid!, 'SIGCONT')
  t.is(await server.handOver(), 1)
  await isAsItWas(t, guest)
  await guest.kill()
  await hasEnded(pid!)
})

test('guests that were handed over and that nobody can take over are named', async (t) => {
  const place = new Place(t)
  const { server, guest } = await guardedHere(t, place)
  const { id } = server.guests[0]!
  const ledger = readdirSync(place.stateDir).find((name) => name.endsWith('.ledger'))
  // So little that whoever has it mapped notices nothing, and whoever takes it over does.
  const path = join(place.stateDir, ledger!)
  truncateSync(path, statSync(path).size - 1)
  await t.throwsAsync(server.handOver(), {
    code: 'ERR_UFFD_HAND_OVER',
    message: new RegExp(`guest ${id} was left, and nobody serves it`),
  })
  await guest.kill()
})

test('a guardian that dies is started again, and guards the guests there are', async (t) => {
  const place = new Place(t)
  const { server, guest } = await guardedHere(t, place)
  const first = server.guardian!.pid!
  const [lost, met, guarded] = [
    once(server, 'guardianTrouble'),
    once(server, 'guardian'),
    once(server, 'guarded'),
  ]
  process.kill(first, 'SIGKILL')
  t.like((await lost)[0], { code: 'ERR_UFFD_GUARDIAN' })
  const [second] = (await met) as [number]
  t.not(second, first)
  t.is((await guarded)[0], server.guests[0]!.id)
  t.is(server.guardian!.pid, second)
  await isAsItWas(t, guest)
  await guest.kill()
  await server.stop()
  await hasEnded(second)
})

test('a guardian ends when no server is there and no guest is left', async (t) => {
  const place = new Place(t)
  const { guest, guardian, child } = await guardedElsewhere(place)
  child.stdin!.end('now\n')
  child.kill('SIGKILL')
  await once(child, 'exit')
  t.is(await guest.wrong(0, 3, 'source'), 0)
  await guest.kill()
  await hasEnded(guardian)
  const server = await place.here()
  t.deepEqual([...server.recovered, ...server.notRecovered], [])
})

/** A cgroup (v2) of the test's own, wherever this host has them. */
function ownCgroup(t: ExecutionContext, name: string): string {
  const mounts = readFileSync('/proc/self/mountinfo', 'utf8').split('\n')
  const [, , , , mount] = mounts.find((line) => line.includes(' - cgroup2 '))!.split(' ')
  const path = join(mount!, `uffd-rs-test-${process.pid}-${name}`)
  t.teardown(async () => {
    if (!existsSync(path)) return
    writeFileSync(join(path, 'cgroup.kill'), '1')
    while (readFileSync(join(path, 'cgroup.events'), 'utf8').includes('populated 1')) {
      await setTimeout(5)
    }
    rmdirSync(path)
  })
  return path
}

test('a guardian in a cgroup of its own is not ended with that of the server, and has its name', async (t) => {
  const place = new Place(t)
  const [its, own] = [ownCgroup(t, 'server'), ownCgroup(t, 'guardian')]
  mkdirSync(its)
  // What a service manager does.
  const by = ['sh', '-c', 'echo $$ > "$0/cgroup.procs" && exec "$@"', its]
  const served = await guardedElsewhere(place, { guardian: { cgroup: own }, by })
  const { guest, guardian, child } = served
  const members = (path: string) => readFileSync(join(path, 'cgroup.procs'), 'utf8').trim()
  t.is(members(its), String(child.pid))
  t.is(members(own), String(guardian))
  t.is(readFileSync(`/proc/${guardian}/comm`, 'utf8'), 'uffd-guardian\n')
  writeFileSync(join(its, 'cgroup.kill'), '1')
  await once(child, 'exit')
  await isAsItWas(t, guest)
  // One that is there already is entered by the next.
  await guest.kill()
  await hasEnded(guardian)
  const server = await place.here({ guardian: { cgroup: own } })
  t.is(members(own), String(server.guardian!.pid))
})

test('a guardian that is frozen holds up no server, no guest and no end', async (t) => {
  const place = new Place(t)
  const { server, guest } = await guardedHere(t, place)
  const { pid } = server.guardian!
  t.teardown(() => process.kill(pid!, 'SIGKILL'))
  process.kill(pid!, 'SIGSTOP')
  const silent = once(server, 'guardianTrouble')
  const other = await place.guest(server.socket)
  for (const one of [guest, other]) t.is(await one.wrong(40, 4, 'source'), 0)
  t.like((await silent)[0], { code: 'ERR_UFFD_GUARDIAN_SILENT' })
  t.is(server.guardian!.pid, pid)
  await isAsItWas(t, guest)
  await server.stop()
  process.kill(pid!, 'SIGCONT')
})

test('guests of a server that stands still in a debugger are served on, and those of one it ends', async (t) => {
  const place = new Place(t)
  const debug = `
    const { Session } = require('node:inspector')
    const session = new Session()
    session.connectToMainThread()
    session.on('Debugger.paused', () => require('node:fs').writeSync(1, 'paused\\n'))
    session.post('Debugger.enable')
    session.post('Debugger.pause')
    // A debugger that ends lets it go on.
    setInterval(() => {}, 1000)`
  const { guest, child, line, end, socket } = await guardedElsewhere(place, {
    touched: `
      new (require('node:worker_threads').Worker)(${JSON.stringify(debug)}, { eval: true })
      setInterval(() => {}, 1)`,
  })
  child.stdin!.write('now\n')
  t.is(await line(), 'paused')
  await isAsItWas(t, guest)
  const late = await place.guest(socket)
  t.is(await late.wrong(0, pages, 'source'), 0)
  await end()
  await guest.ask({ op: 'write', page: 30, count: 2, stamp: 11 })
  t.is(await guest.wrong(50, 4, 'source'), 0)
})

test('a guardian that cannot be started is an error that names it, and nothing is left', async (t) => {
  const place = new Place(t)
  const path = join(temporaryDirectory(t), 'not-there')
  await t.throwsAsync(place.here({ guardian: { path } }), {
    code: 'ERR_UFFD_GUARDIAN',
    message: /not-there: No such file/,
  })
  await t.throwsAsync(place.here({ guardian: { path: '/bin/false' } }), {
    code: 'ERR_UFFD_GUARDIAN',
    message: /\/bin\/false did not start/,
  })
  const cgroup = join(temporaryDirectory(t), 'no', 'cgroup')
  await t.throwsAsync(place.here({ guardian: { cgroup } }), {
    code: 'ERR_UFFD_GUARDIAN',
    // Once, whoever of those that were started has found it.
    message: new RegExp(`^the guardian \\S+ did not start: cannot enter the cgroup ${cgroup}: .+$`),
  })
  const server = await place.here()
  const [process] = await Promise.all([place.guest(server.socket), server.accept()])
  t.is(await process.wrong(0, pages, 'source'), 0)
})

test('a guardian of another version keeps its guests, and is refused by name', async (t) => {
  const place = new Place(t)
  const { stateDir } = place
  mkdirSync(stateDir, { mode: 0o700 })
  const other = spawn(managerProgram, ['guardian', stateDir, '7'], { stdio: ['pipe', 'pipe', 2] })
  t.teardown(() => other.kill('SIGKILL'))
  await once(other.stdout!, 'data')
  await t.throwsAsync(place.here({ guardian: true }), {
    code: 'ERR_UFFD_GUARDIAN_VERSION',
    message: /version 7/,
  })
  t.is(other.exitCode, null)
})

test('it writes a log where that is wanted, and is refused without a state directory', async (t) => {
  const place = new Place(t)
  const log = join(temporaryDirectory(t), 'guardian.log')
  const server = await place.here({ guardian: { log } })
  const guarded = once(server, 'guarded')
  const guest = await place.guest(server.socket)
  await guarded
  await server.handOver()
  t.is(await guest.wrong(0, pages, 'source'), 0)
  t.true(readFileSync(log, 'utf8').includes('\n'))
  await t.throwsAsync(place.here({ guardian: true, stateDir: undefined }), {
    code: 'ERR_UFFD_INVALID_OPTION',
    message: /stateDir/,
  })
})
