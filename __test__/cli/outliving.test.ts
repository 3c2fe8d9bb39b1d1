// Guests of the command that outlive it.
import { readdirSync } from 'node:fs'
import { join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { CommandProcess, runCommand } from '../support/command.js'
import { freeze } from '../support/frozen.js'
import { GuestProcess } from '../support/guest.js'
import { isAsItWas, live, pages, Place } from '../support/place.js'

function place(t: ExecutionContext) {
  const { socket, snapshot, stateDir } = new Place(t).options()
  const args = ['--socket', socket, '--snapshot', snapshot, '--state-dir', stateDir]
  return { socket, stateDir: stateDir, args }
}

async function guest(t: ExecutionContext, socket: string): Promise<GuestProcess> {
  const started = await GuestProcess.start(socket, String(pages))
  t.teardown(() => started.kill())
  await live(started)
  return started
}

const ledgers = (stateDir: string) =>
  readdirSync(stateDir).filter((name) => name.endsWith('.ledger'))

for (const [signal, more] of [
  ['SIGUSR2', []],
  ['SIGTERM', ['--hand-over']],
] as const) {
  test(`${[signal, ...more].join(' with ')} leaves guests to the command that waits`, async (t) => {
    const { args, socket, stateDir } = place(t)
    const first = new CommandProcess(t, ...args, ...more)
    await first.event('ready')
    const process = await guest(t, socket)
    await first.event('guest')
    // It waits for the directory, and for the socket with it.
    const second = new CommandProcess(t, ...args, '--state-dir-wait')
    t.like(await second.event('waiting'), { guests: 1, stateDir })
    first.signal(signal)
    t.is((await first.ended).status, 0)
    t.like(await first.event('stopping'), { signal, leavesGuests: true })
    t.like(await first.event('handed-over'), { guests: 1, stateDir })
    t.like(await first.event('summary'), { handedOver: 1, stopped: 0 })
    t.is(((await second.event('recovered'))['guests'] as string[]).length, 1)
    await second.event('ready')
    await isAsItWas(t, process)
    second.signal('SIGTERM')
    t.is((await second.ended).status, 0)
  })
}

test('SIGTERM with a guardian leaves guests to it, and the next command has them back', async (t) => {
  const { args, socket } = place(t)
  const first = new CommandProcess(t, ...args, '--guardian', '--log-level', 'debug')
  await first.event('ready')
  const { pid } = await first.event('guardian')
  const process = await guest(t, socket)
  await first.event('guarded')
  first.signal('SIGTERM')
  t.is((await first.ended).status, 0)
  t.like(await first.event('handed-over'), { guests: 1, guardian: pid })
  // Nobody but the guardian is there.
  await isAsItWas(t, process)
  const second = new CommandProcess(t, ...args, '--guardian')
  t.is(((await second.event('recovered'))['guests'] as string[]).length, 1)
  t.is((await second.event('guardian'))['pid'], pid)
  await isAsItWas(t, process)
})

test('a command whose guardian is frozen serves on, and leaves guests once it goes on', async (t) => {
  const { args, socket } = place(t)
  const command = new CommandProcess(t, ...args, '--guardian', '--log-level', 'debug')
  await command.event('ready')
  const pid = (await command.event('guardian'))['pid'] as number
  const served = await guest(t, socket)
  await command.event('guarded')
  await freeze(pid)
  command.signal('SIGUSR2')
  t.like(await command.event('not-handed-over'), { code: 'ERR_UFFD_GUARDIAN_SILENT' })
  await isAsItWas(t, served)
  process.kill(pid, 'SIGCONT')
  t.is((await command.ended).status, 0)
  t.like(await command.event('handed-over'), { guests: 1, guardian: pid })
  await isAsItWas(t, served)
})

test('SIGTERM alone stops guests, and says what becomes of them', async (t) => {
  const { args, socket, stateDir } = place(t)
  const command = new CommandProcess(t, ...args)
  await command.event('ready')
  await guest(t, socket)
  await command.event('guest')
  command.signal('SIGTERM')
  t.is((await command.ended).status, 0)
  t.like(await command.event('stopping'), { leavesGuests: false })
  const { msg } = await command.event('stopped')
  t.is(msg, 'Stopped 1 guest: who still runs waits at the next page it misses')
  t.deepEqual(ledgers(stateDir), [])
})

test('a command that is killed leaves its guests, and tells of what it finds', async (t) => {
  const { args, socket, stateDir } = place(t)
  const first = new CommandProcess(t, ...args)
  await first.event('ready')
  const [kept, gone] = [await guest(t, socket), await guest(t, socket)]
  first.signal('SIGKILL')
  await first.ended
  await gone.kill()
  const [before] = [ledgers(stateDir)]
  const second = new CommandProcess(t, ...args)
  await second.event('ready')
  const swept = (await second.event('swept'))['ledgers'] as string[]
  t.is(swept.length, 1)
  t.true(before.map((name) => join(stateDir, name)).includes(swept[0]!))
  t.is(((await second.event('recovered'))['guests'] as string[]).length, 1)
  await isAsItWas(t, kept)
})

test('a wait for the state directory ends with a signal', async (t) => {
  const { args } = place(t)
  const first = new CommandProcess(t, ...args)
  await first.event('ready')
  const second = new CommandProcess(t, ...args, '--state-dir-wait')
  t.like(await second.event('waiting'), { guests: 0 })
  second.signal('SIGTERM')
  t.is((await second.ended).status, 0)
  t.deepEqual(
    second.events.filter(({ event }) => event === 'ready'),
    [],
  )
})

test('released guests need no command', async (t) => {
  const { args, socket } = place(t)
  const command = new CommandProcess(t, ...args, '--once', '--release', '--log-level', 'debug')
  await command.event('ready')
  const process = await GuestProcess.start(socket, String(pages))
  t.teardown(() => process.kill())
  const { status } = await command.ended
  t.is(status, 0)
  t.like(await command.event('end'), { reason: 'released' })
  const progress = command.events.filter(({ event }) => event === 'releasing')
  t.like(progress.at(-1), { done: pages, pages })
  t.is(await process.wrong(0, pages, 'source'), 0)
})

test('options that contradict each other, or would change nothing, are a wrong command line', async (t) => {
  const { args } = place(t)
  const [socket, snapshot] = [args.slice(0, 2), args.slice(2, 4)]
  for (const [more, why] of [
    [['--hand-over'], /--hand-over leaves guests in a state directory/],
    [['--guardian'], /--guardian serves the guests of a state directory/],
    [['--guardian-log', '/tmp/log'], /--guardian-log .* give --guardian too/],
    [['--guardian-cgroup', '/c'], /--guardian-cgroup .* give --guardian too/],
    [['--state-dir-wait'], /--state-dir-wait .* give --state-dir too/],
    [['--prefetch-mode', 'fetch'], /--prefetch-mode .* give --prefetch too/],
    [['--http-guests'], /--http-guests .* give --http too/],
    [['--release', '--dirty-tracking', 'on'], /--release would end the tracking/],
  ] as const) {
    const { status, stderr } = await runCommand(t, ...socket, ...snapshot, ...more)
    t.is(status, 2)
    t.regex(stderr, why)
  }
})
