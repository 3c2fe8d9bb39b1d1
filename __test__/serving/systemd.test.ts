// A Node of one's own as a service of a manager such as systemd.
import test, { type ExecutionContext } from 'ava'
import { GuestProcess } from '../support/guest.js'
import { index, isAsItWas, live, pages, Place } from '../support/place.js'
import { ServiceManager } from '../support/service-manager.js'

const [sigkill, sigterm] = [9, 15]

/** A Node that has `listen`, `one` and `other` (options of servers), and `say`. */
function service(t: ExecutionContext, script: string) {
  const [one, other] = [new Place(t).options(), new Place(t).options()]
  const text = `
    const { listen } = require(${JSON.stringify(index)})
    const [one, other] = ${JSON.stringify([one, other])}
    const say = (event, facts) => console.log(JSON.stringify({ event, ...facts }))
    ;(async () => { ${script} })()`
  return { one, other, command: [process.execPath, '-e', text] }
}

async function guest(t: ExecutionContext, socket: string): Promise<GuestProcess> {
  const started = await GuestProcess.start(socket, String(pages))
  t.teardown(() => started.kill())
  return started
}

test('what the manager told is known, and is in the environment no more', async (t) => {
  const { command } = service(
    t,
    `const server = await listen({ ...one, systemd: true })
     const left = Object.keys(process.env).filter((name) => /^(NOTIFY|LISTEN|WATCHDOG|FDSTORE)/.test(name))
     say('known', { ...server.systemd, left })`,
  )
  const manager = new ServiceManager(t, { store: 3, watchdogUsec: 20_000_000 })
  await manager.start(command, { LISTEN_PIDFDID: '1' })
  const known = { isTold: true, storeMax: 3, watchdogMs: 20_000, unusedSockets: [], left: [] }
  t.like(await manager.event('known'), known)
  await manager.end(sigterm)
})

test('a server that is not asked to has nothing to do with a manager', async (t) => {
  const { command } = service(
    t,
    `const server = await listen(one)
     say('known', { is: server.systemd === undefined, socket: process.env.NOTIFY_SOCKET })`,
  )
  const manager = new ServiceManager(t)
  await manager.start(command)
  t.like(await manager.event('known'), { is: true, socket: manager.notify })
  await manager.end(sigterm)
  t.deepEqual(manager.said, [])
})

test('several servers are one service: ready once, with all of their guests, each in its directory', async (t) => {
  const { one, other, command } = service(
    t,
    `const servers = await Promise.all([one, other].map((options) => listen({ ...options, systemd: true })))
     say('recovered', { counts: servers.map(({ recovered }) => recovered.length) })
     // One that is started later changes nothing.
     await (await listen({ ...one, socket: one.socket + '2', stateDir: undefined, systemd: true })).close()
     say('all')`,
  )
  const manager = new ServiceManager(t)
  await manager.start(command)
  t.deepEqual((await manager.event('recovered'))['counts'], [0, 0])
  const guests = [await guest(t, one.socket), await guest(t, other.socket)]
  await Promise.all(guests.map(live))
  await manager.told(/^STATUS=Serves 2 guests$/)
  await manager.event('all')
  t.is(manager.said.filter((said) => said.startsWith('READY=1')).length, 1)
  t.is((await manager.kept()).length, 2)
  await manager.end(sigkill)
  await manager.start(command)
  t.deepEqual((await manager.event('recovered'))['counts'], [1, 1])
  await Promise.all(guests.map((served) => isAsItWas(t, served)))
  await manager.end(sigkill)
})

test('an event loop that is blocked, as by a debugger, is no reason to end its guests', async (t) => {
  const { one, command } = service(
    t,
    `await listen({ ...one, systemd: true })
     require('fs').writeSync(1, '{"event":"blocked"}\\n')
     Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0)`,
  )
  const manager = new ServiceManager(t, { watchdogUsec: 60_000 })
  await manager.start(command)
  await manager.event('blocked')
  const served = await guest(t, one.socket)
  await live(served)
  await isAsItWas(t, served)
  const { length } = manager.said.filter((said) => said === 'WATCHDOG=1')
  await manager.told(/^WATCHDOG=1$/, length + 5)
  await manager.end(sigkill)
})

test('what is wrong with a manager is an event for whoever listens, or a warning', async (t) => {
  const { command } = service(
    t,
    `const server = await listen({ ...one, systemd: true })
     if (process.env.LISTENS) server.on('trouble', ({ code }) => say('trouble', { code }))
     process.on('warning', ({ code }) => say('warning', { code }))`,
  )
  const manager = new ServiceManager(t)
  const wrong = { NOTIFY_SOCKET: '/nowhere/at/all' }
  for (const [event, env] of [
    ['trouble', { ...wrong, LISTENS: '1' }],
    ['warning', wrong],
  ] as const) {
    await manager.start(command, env)
    t.is((await manager.event(event))['code'], 'ERR_UFFD_SERVICE_MANAGER')
    await manager.end(sigterm)
  }
})
