// `uffd-rs-serve restore` and `configure` as processes, with a Firecracker of the test's own.
import { existsSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { Trace } from '../../src/index.js'
import { CommandProcess, runCommand } from '../support/command.js'
import { Firecracker, type Played } from '../support/firecracker.js'
import { withApi } from '../support/with-api.js'
import { temporaryDirectory } from '../support/stage.js'

async function place(t: ExecutionContext, played: Played = {}) {
  const firecracker = await Firecracker.start(t, played)
  const { apiSocket, snapshotState, snapshot } = firecracker.options
  const args = ['restore', '--api-socket', apiSocket]
  const files = ['--snapshot-state', snapshotState, '--snapshot', snapshot]
  return { firecracker, args: [...args, ...files], api: args }
}

test('it restores, serves, saves the trace and ends with the guest', async (t) => {
  const { firecracker, args } = await place(t, { version: '1.15.0' })
  const trace = join(temporaryDirectory(t), 'boot.trace')
  const command = new CommandProcess(t, ...args, '--trace', trace, '--stats', '50ms')
  t.like(await command.event('restored'), { version: '1.15.0', memSizeMib: 128, resumed: true })
  t.is(await firecracker.guest.wrong(0, firecracker.pages, 'source'), 0)
  t.like(await command.event('guest'), { guest: 1, pid: firecracker.guest.pid })
  await command.event('stats')
  await firecracker.guest.exit()
  const { status, stderr } = await command.ended
  t.is(stderr, '')
  t.is(status, 0)
  t.like(await command.event('end'), { reason: 'guest-exited' })
  t.like(await command.event('summary'), { exited: 1, failed: 0 })
  t.true((await Trace.load(trace, { snapshot: firecracker.snapshot })).summary.pages > 0)

  const again = await place(t)
  const other = ['--snapshot', firecracker.snapshot, '--prefetch', trace]
  const withTrace = [...again.args.slice(0, -2), ...other, '--no-json']
  const second = new CommandProcess(t, ...withTrace)
  await second.line(/^Restored a microVM /)
  t.is(await again.firecracker.guest.wrong(0, firecracker.pages, 'source'), 0)
  await again.firecracker.guest.exit()
  const { stdout, status: secondStatus } = await second.ended
  t.is(secondStatus, 0, stdout)
  t.regex(stdout, /^Restored a microVM into Firecracker 1\.16\.1 at .*; it runs$/m)
  t.regex(stdout, /^Guest 1: prefetched /m)
})

test('an option about a trace that is not given is a wrong command line', async (t) => {
  const args = ['--api-socket', '/a', '--snapshot-state', '/s', '--snapshot', '/m']
  const { status, stderr } = await runCommand(t, 'restore', ...args, '--prefetch-first', '1s')
  t.is(status, 2)
  t.regex(stderr, /--prefetch-first .* give --prefetch too$/m)
})

test('it is looked into and stopped over the control socket beside its own', async (t) => {
  const { firecracker, args } = await place(t)
  const command = new CommandProcess(t, ...args)
  await command.event('guest')
  const { socket } = firecracker
  const asked = await runCommand(t, 'status', '--socket', socket)
  t.is(asked.status, 0, asked.stderr)
  const [server, guest] = asked.stdout.split('\n').map((line) => JSON.parse(line) as object)
  t.like(server, { event: 'server', pid: command.pid, accepts: false })
  t.like(guest, { event: 'guest', pid: firecracker.guest.pid })
  t.is((await runCommand(t, 'stop', '--socket', socket)).status, 0)
  t.is((await command.ended).status, 0)
  t.like(await command.event('stopping'), { by: 'control' })
  t.false(existsSync(`${socket}.control`))
})

for (const signal of ['SIGTERM', 'SIGINT'] as const) {
  test(`${signal} while it serves ends it in good order`, async (t) => {
    const { firecracker, args } = await place(t)
    const command = new CommandProcess(t, ...args)
    await command.event('guest')
    command.signal(signal)
    t.is((await command.ended).status, 0)
    t.like(await command.event('stopping'), { signal })
    t.like(await command.event('end'), { reason: 'stopped' })
    t.is(firecracker.api.vm.state, 'Running')
  })
}

test('SIGTERM while Firecracker is loading takes everything down', async (t) => {
  const never = new Promise<void>(() => {})
  const { firecracker, args } = await place(t, { afterHandoff: () => never })
  const command = new CommandProcess(t, ...args)
  await firecracker.api.arrived('PUT /snapshot/load')
  command.signal('SIGTERM')
  t.is((await command.ended).status, 1)
  const expected = { code: 'ERR_UFFD_RESTORE_ABORTED', step: 'load', vm: 'unusable' }
  t.like(await command.event('restore'), expected)
  t.false(existsSync(firecracker.socket))
})

test('a restore that fails says which step, and ends with 1', async (t) => {
  const { args } = await place(t, {
    onLoadSnapshot: async () => {
      throw new Error('the state file is of another planet')
    },
  })
  const command = new CommandProcess(t, ...args)
  t.is((await command.ended).status, 1)
  const failure = await command.event('restore')
  t.like(failure, { level: 'error', code: 'ERR_UFFD_RESTORE_LOAD', step: 'load', vm: 'unusable' })
  t.regex(String(failure['msg']), /answered 400: the state file is of another planet/)
})

test('reporting for a Firecracker that cannot is refused in both versions’ names', async (t) => {
  const { firecracker, args } = await place(t, { version: '1.13.1' })
  const { status, stdout } = await runCommand(t, ...args, '--free-page-reporting')
  t.is(status, 1)
  t.regex(stdout, /freePageReporting needs Firecracker 1\.14\.0 or later, but this is 1\.13\.1/)
  t.deepEqual(firecracker.routes, ['GET /version'])
})

test('the options reach the load', async (t) => {
  const { firecracker, args } = await place(t, { version: '1.17.0-dev' })
  const socket = join(temporaryDirectory(t), 's')
  const more = ['--no-resume', '--track-dirty-pages', '--clock-realtime', '--socket', socket]
  more.push('--huge-pages', 'None')
  const overrides = ['--network-overrides', 'eth0=tap1,eth1=tap2', '--vsock-override', '/v']
  const command = new CommandProcess(t, ...args, ...more, ...overrides)
  t.like(await command.event('restored'), { resumed: false })
  t.deepEqual(firecracker.api.bodies('PUT /snapshot/load'), [
    {
      snapshot_path: firecracker.options.snapshotState,
      mem_backend: { backend_type: 'Uffd', backend_path: socket },
      resume_vm: false,
      track_dirty_pages: true,
      clock_realtime: true,
      huge_pages: 'None',
      vsock_override: { uds_path: '/v' },
      network_overrides: [
        { iface_id: 'eth0', host_dev_name: 'tap1' },
        { iface_id: 'eth1', host_dev_name: 'tap2' },
      ],
    },
  ])
  t.false(firecracker.routes.includes('PATCH /vm'))
})

test('the socket is given to the user of Firecracker', async (t) => {
  let owner: unknown
  const { firecracker, args } = await place(t, {
    onLoadSnapshot: async () => {
      const { uid, gid } = statSync(firecracker.socket)
      owner = { uid, gid }
    },
  })
  // Only root can give files away.
  const [uid, gid] = process.getuid!() === 0 ? [7, 8] : [process.getuid!(), process.getgid!()]
  const command = new CommandProcess(t, ...args, '--socket-owner', `${uid}:${gid}`)
  await command.event('restored')
  t.deepEqual(owner, { uid, gid })
  const wrong = await runCommand(t, ...args, '--socket-owner', 'firecracker')
  t.is(wrong.status, 2)
  t.regex(wrong.stderr, /--socket-owner must be the numbers of a user and a group, such as 123:100/)
})

test('a template is enough', async (t) => {
  const { firecracker, api } = await place(t)
  const template = join(firecracker.snapshot, '..', 'template.json')
  const snapshot = { statePath: 'state', memoryPath: 'mem' }
  const input = { firecracker: '1.13.0', memSizeMib: 128 }
  writeFileSync(template, JSON.stringify(input))
  const without = await runCommand(t, ...api, '--template', template)
  t.is(without.status, 2)
  t.regex(without.stderr, /--snapshot-state FILE is missing, and the template names no snapshot/)
  writeFileSync(template, JSON.stringify({ ...input, snapshot }))
  const command = new CommandProcess(t, ...api, '--template', template)
  await command.event('restored')
  t.is(await firecracker.guest.wrong(0, firecracker.pages, 'source'), 0)
})

for (const [args, reports] of [
  [[], true],
  [['--no-free-page-reporting'], false],
] as const) {
  test(`configure ${args.join(' ')}: the choice reaches the balloon`, async (t) => {
    const { api } = await withApi(t, { version: '1.14.1' })
    const template = join(temporaryDirectory(t), 'template.json')
    writeFileSync(template, JSON.stringify({ firecracker: '1.14.1', memSizeMib: 64, balloon: {} }))
    const paths = ['--api-socket', api.socketPath, '--template', template]
    const { status, stdout } = await runCommand(t, 'configure', ...paths, ...args)
    t.is(status, 0)
    t.regex(stdout, new RegExp(`64 MiB, 1 vCPU, free page reporting ${reports ? 'on' : 'off'}$`))
    t.like(api.bodies('PUT /balloon')[0], { free_page_reporting: reports })
  })
}

test('configure tells nothing to a Firecracker that is too old', async (t) => {
  const { api } = await withApi(t, { version: '1.12.1' })
  const template = join(temporaryDirectory(t), 'template.json')
  writeFileSync(template, JSON.stringify({ firecracker: '1.14.1', memSizeMib: 64 }))
  const paths = ['--api-socket', api.socketPath, '--template', template]
  const { status, stderr } = await runCommand(t, 'configure', ...paths)
  t.is(status, 1)
  t.regex(stderr, /The template needs Firecracker 1\.14\.1 or later, but this is 1\.12\.1/)
  t.deepEqual(
    api.requests.map(({ route }) => route),
    ['GET /version'],
  )
})
