// The command as a service of a manager such as systemd.
import { existsSync } from 'node:fs'
import { createServer } from 'node:net'
import { join } from 'node:path'
import { once } from 'node:events'
import test, { type ExecutionContext } from 'ava'
import { cli } from '../support/command.js'
import { GuestProcess } from '../support/guest.js'
import { isAsItWas, live, pages, Place } from '../support/place.js'
import { ServiceManager } from '../support/service-manager.js'
import { temporaryDirectory } from '../support/stage.js'

const [sigkill, sigusr2, sigterm] = [9, 12, 15]

function place(t: ExecutionContext) {
  const { socket, snapshot, stateDir } = new Place(t).options()
  const command = [process.execPath, cli, '--socket', socket, '--snapshot', snapshot]
  return { socket, stateDir, alone: command, command: [...command, '--state-dir', stateDir] }
}

/** It may not take descriptors from a guest, which may do more than itself. */
const withoutTracing = (command: readonly string[]) => [
  'setpriv',
  '--bounding-set=-sys_ptrace',
  '--inh-caps=-sys_ptrace',
  ...command,
]

async function guest(t: ExecutionContext, socket: string): Promise<GuestProcess> {
  const started = await GuestProcess.start(socket, String(pages))
  t.teardown(() => started.kill())
  return started
}

const name = /^uffd-rs-[0-9a-f]{8}-[0-9a-f-]{36}$/

test('a service that is killed has its guests back from the store, where it may not take them from their VMM', async (t) => {
  const { socket, command } = place(t)
  const manager = new ServiceManager(t)
  await manager.start(withoutTracing(command))
  await manager.told(/^READY=1/)
  const process = await guest(t, socket)
  const { fd } = await manager.told(/^FDSTORE=1\nFDPOLL=0\nFDNAME=uffd-rs-/)
  t.true(fd)
  await live(process)
  t.is((await manager.end(sigkill)).signal, sigkill)
  const waiting = process.wrong(20, 1, 'source')

  // Without what the manager keeps the guest cannot be had.
  await manager.start(withoutTracing([...command, '--no-systemd']))
  t.is((await manager.event('not-recovered'))['code'], 'ERR_UFFD_RECOVERY_DESCRIPTOR')
  await manager.event('ready')
  await manager.end(sigkill)
  t.deepEqual(manager.said, [])

  for (const signal of [sigkill, sigusr2, sigkill]) {
    await manager.start(withoutTracing(command))
    t.is(((await manager.event('recovered'))['guests'] as string[]).length, 1)
    await manager.told(/^READY=1/)
    await manager.told(/^STATUS=Serves 1 guest$/)
    t.is(await waiting, 0)
    await isAsItWas(t, process)
    await manager.end(signal)
    // It has it already.
    t.deepEqual(
      manager.said.filter((said) => said.startsWith('FDSTORE')),
      [],
    )
  }
  const kept = await manager.kept()
  t.is(kept.length, 1)
  t.regex(kept[0]!, name)

  await manager.start(withoutTracing(command))
  await manager.event('recovered')
  await process.kill()
  await manager.told(/^FDSTOREREMOVE=1\nFDNAME=uffd-rs-/)
  t.deepEqual(await manager.kept(), [])
  await manager.end(sigterm)
})

test('the manager is told of readiness, guests and the end, and no program after it is', async (t) => {
  const { socket, command } = place(t)
  const manager = new ServiceManager(t, { notify: `@uffd-rs-test-${process.pid}` })
  const pid = await manager.start(command)
  await manager.event('ready')
  t.like(await manager.event('systemd'), { isTold: true, storeMax: 16, unusedSockets: [] })
  const served = await guest(t, socket)
  await manager.told(/^STATUS=Serves 1 guest$/)
  await served.kill()
  await manager.told(/^STATUS=Serves 0 guests$/, 1)
  t.is((await manager.end(sigterm)).code, 0)
  const { said } = manager
  t.deepEqual(
    said.filter((one) => !one.startsWith('FDSTORE')),
    [
      `READY=1\nMAINPID=${pid}`,
      'STATUS=Serves 0 guests',
      'STATUS=Serves 1 guest',
      'STATUS=Serves 0 guests',
      'STOPPING=1',
    ],
  )
})

test('a socket of the manager is used: who connects while no service runs waits for it', async (t) => {
  const { socket, command } = place(t)
  const manager = new ServiceManager(t, { listen: [socket] })
  // It connects to the manager's socket.
  const first = guest(t, socket)
  await manager.start(command)
  await live(await first)
  await isAsItWas(t, await first)
  await manager.end(sigusr2)
  t.true(existsSync(socket))
  const second = await guest(t, socket)
  await manager.start(command)
  t.is(((await manager.event('recovered'))['guests'] as string[]).length, 1)
  t.is(await second.wrong(0, pages, 'source'), 0)
  await isAsItWas(t, await first)
  await manager.end(sigterm)
  t.true(existsSync(socket))
})

test('a socket that nobody would accept on is named, and so is one that cannot be used', async (t) => {
  const { command, socket } = place(t)
  const other = join(temporaryDirectory(t), 'other.sock')
  const manager = new ServiceManager(t, { listen: [other, socket] })
  await manager.start(command)
  const { msg } = await manager.event('unused-socket')
  t.true((msg as string).includes(other) && (msg as string).includes(socket))
  await manager.end(sigterm)
  await manager.start([...command, '--socket-mode', '660'])
  await manager.error(/socketMode come too late/)
  t.is((await manager.ended()).code, 1)
})

test('it gets signs of life', async (t) => {
  const { socket, command } = place(t)
  const manager = new ServiceManager(t, { watchdogUsec: 60_000 })
  await manager.start(command)
  await manager.event('ready')
  await guest(t, socket)
  await manager.told(/^STATUS=Serves 1 guest$/)
  await manager.told(/^WATCHDOG=1$/, 10)
  await manager.end(sigkill)
  // They are wanted from another process.
  await manager.start(command, { WATCHDOG_PID: '1' })
  await manager.told(/^READY=1/)
  t.is((await manager.event('systemd'))['watchdogMs'], undefined)
  await manager.end(sigterm)
  t.false(manager.said.includes('WATCHDOG=1'))
})

test('what is kept and of no use is said, and not kept any longer', async (t) => {
  const { socket, stateDir, command } = place(t)
  const manager = new ServiceManager(t)
  await manager.start(withoutTracing(command))
  await manager.event('ready')
  const process = await guest(t, socket)
  await manager.told(/^FDSTORE=1/)
  await live(process)
  await manager.end(sigkill)
  const [kept] = await manager.kept()
  const [, prefix, id] = /^(uffd-rs-[0-9a-f]{8}-)([0-9a-f-]{36})$/.exec(kept!)!
  // A guest without a ledger; what is no userfaultfd; and what other directories and services keep.
  const [gone, nonsense] = [`${prefix}${id!.replaceAll(/\d/g, '0')}`, `${prefix}nonsense`]
  const others = ['uffd-rs-00000000-other', 'http']
  for (const one of [nonsense, ...others]) manager.keepNonsense(one)
  manager.rename(kept!, gone)

  await manager.start(withoutTracing(command))
  await manager.event('ready')
  const told = [await manager.event('trouble'), await manager.event('trouble', 1)]
  t.deepEqual(
    told.map(({ code }) => code),
    ['ERR_UFFD_SERVICE_MANAGER_STRAY', 'ERR_UFFD_SERVICE_MANAGER_STRAY'],
  )
  const text = told.map(({ msg }) => msg).join()
  t.regex(text, /keeps \/dev\/null as uffd-rs-[0-9a-f]{8}-nonsense/)
  t.true(text.includes(`there is no ledger of it in ${stateDir}`))
  t.is((await manager.event('not-recovered'))['code'], 'ERR_UFFD_RECOVERY_DESCRIPTOR')
  t.deepEqual(await manager.kept(), others)
  await manager.end(sigkill)
})

test('a store that is full is said, and the guest is served all the same', async (t) => {
  const { socket, command } = place(t)
  const manager = new ServiceManager(t, { store: 1 })
  await manager.start(command)
  await manager.event('ready')
  const served = [await guest(t, socket), await guest(t, socket)]
  t.regex((await manager.event('trouble'))['msg'] as string, /keeps 1 descriptors and no more/)
  for (const one of served) t.is(await one.wrong(0, pages, 'source'), 0)
  t.is((await manager.kept()).length, 1)
  await manager.end(sigterm)
})

test('a manager that hangs holds up no guest, and is told how things are once it goes on', async (t) => {
  const { socket, command } = place(t)
  const manager = new ServiceManager(t)
  manager.beDeaf(true)
  await manager.start(command)
  await manager.event('ready')
  const [gone, stays] = [await guest(t, socket), await guest(t, socket)]
  for (const one of [gone, stays]) t.is(await one.wrong(0, pages, 'source'), 0)
  await gone.kill()
  await manager.event('end')
  manager.beDeaf(false)
  await manager.told(/^STATUS=Serves 1 guest$/)
  t.true(manager.said.some((said) => said.startsWith('READY=1')))
  t.is((await manager.kept()).length, 1)
  manager.beDeaf(true)
  t.is((await manager.end(sigterm)).code, 0)
})

test('whatever the environment says, guests are served', async (t) => {
  const { socket, command } = place(t)
  const stream = join(temporaryDirectory(t), 'stream')
  const listening = createServer().listen(stream)
  await once(listening, 'listening')
  t.teardown(() => listening.close())
  const manager = new ServiceManager(t)
  for (const [env, code] of [
    [{ NOTIFY_SOCKET: '/nowhere/at/all' }, 'ERR_UFFD_SERVICE_MANAGER'],
    [{ NOTIFY_SOCKET: 'nowhere' }, 'ERR_UFFD_SERVICE_MANAGER'],
    [{ NOTIFY_SOCKET: stream }, 'ERR_UFFD_SERVICE_MANAGER'],
    [{ LISTEN_FDS: '1000' }, 'ERR_UFFD_SERVICE_MANAGER_ENVIRONMENT'],
    [{ LISTEN_FDS: 'many' }, 'ERR_UFFD_SERVICE_MANAGER_ENVIRONMENT'],
    [{ LISTEN_FDS: '1', LISTEN_FDNAMES: 'a:b' }, 'ERR_UFFD_SERVICE_MANAGER_ENVIRONMENT'],
    [{ WATCHDOG_USEC: '0' }, 'ERR_UFFD_SERVICE_MANAGER_ENVIRONMENT'],
    // Numbers that Node.js has opened for itself.
    [{ LISTEN_FDS: '8', LISTEN_FDNAMES: 'a:b:c:d:e:f:g:h' }, undefined],
    [{ LISTEN_FDS: '1000', LISTEN_PID: '1' }, undefined],
  ] as const) {
    await manager.start(command, env)
    await manager.event('ready')
    if (code !== undefined) t.is((await manager.event('trouble'))['code'], code)
    const one = await guest(t, socket)
    t.is(await one.wrong(0, pages, 'source'), 0)
    await one.kill()
    t.is((await manager.end(sigterm)).code, 0)
  }
})

test('without a state directory it is a service as well, and keeps nothing', async (t) => {
  const { socket, alone } = place(t)
  const manager = new ServiceManager(t)
  await manager.start(alone)
  await manager.told(/^READY=1/)
  const served = await guest(t, socket)
  t.is(await served.wrong(0, pages, 'source'), 0)
  await manager.end(sigterm)
  t.deepEqual(await manager.kept(), [])
})
