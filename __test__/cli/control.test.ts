// `status`, `dump` and `stop` against a server of the command, and against strangers in its place.
import { existsSync, statSync, writeFileSync } from 'node:fs'
import { createServer, type RequestListener } from 'node:http'
import { once } from 'node:events'
import { dirname, join } from 'node:path'
import { spawn } from 'node:child_process'
import test, { type ExecutionContext } from 'ava'
import { ask } from '../../src/cli/control/client.js'
import { type CommandProcess, CommandProcess as Command, runCommand } from '../support/command.js'
import { GuestProcess } from '../support/guest.js'
import { snapshotFile, temporaryDirectory } from '../support/stage.js'

const pages = 64

interface Running {
  readonly command: CommandProcess
  readonly socket: string
  readonly control: string
  readonly guest: () => Promise<GuestProcess>
}

/** A server of the command that is ready. */
async function running(t: ExecutionContext, ...more: string[]): Promise<Running> {
  const snapshot = snapshotFile(t, pages)
  const socket = join(dirname(snapshot), 'uffd.sock')
  const command = new Command(t, '--socket', socket, '--snapshot', snapshot, ...more)
  await command.event('ready')
  let count = 0
  const guest = async () => {
    const process = await GuestProcess.start(socket, `${pages}`)
    t.teardown(() => process.kill())
    await command.event('guest', count++)
    return process
  }
  return { command, socket, control: `${socket}.control`, guest }
}

interface Line {
  readonly event: string
  readonly [field: string]: unknown
}

const linesOf = ({ stdout }: { stdout: string }) =>
  stdout.split('\n').map((line) => JSON.parse(line) as Line)

test('status says how the server of a socket and its guests do, as lines and as a table', async (t) => {
  const { command, socket, guest } = await running(t)
  const vm = await guest()
  await vm.wrong(0, pages, 'source')
  const asked = await runCommand(t, 'status', '--socket', socket)
  t.is(asked.status, 0, asked.stderr)
  const [server, ...guests] = linesOf(asked)
  t.like(server, { event: 'server', level: 'info', pid: command.pid, socket, accepts: true })
  t.is(guests.length, 1)
  t.like(guests[0], { event: 'guest', pid: vm.pid, memoryBytes: pages * 4096 })

  const text = await runCommand(t, 'status', '--control', `unix:${socket}.control`, '--no-json')
  t.is(text.status, 0)
  t.regex(text.stdout, new RegExp(`^uffd-rs \\S+, process ${command.pid}, for `))
  t.regex(text.stdout, /guests +1 served now/)
  t.regex(text.stdout, new RegExp(`^ *guest +pid +in hand.*\n.*\\b${vm.pid}\\b.* 256 KiB`, 'm'))
})

test('dump prints what is known of all guests, or of one', async (t) => {
  const { socket, guest } = await running(t)
  const vms = [await guest(), await guest()]
  const all = await runCommand(t, 'dump', '--socket', socket)
  t.is(all.status, 0, all.stderr)
  const dumped = JSON.parse(all.stdout) as {
    guests: { id: string; pid: number; regions: unknown[] }[]
  }
  t.deepEqual(new Set(dumped.guests.map(({ pid }) => pid)), new Set(vms.map(({ pid }) => pid)))
  for (const { regions } of dumped.guests) t.is(regions.length, 1)
  const one = await runCommand(t, 'dump', '--socket', socket, '--guest', `${vms[0]!.pid}`)
  t.is((JSON.parse(one.stdout) as { guests: unknown[] }).guests.length, 1)
  const none = await runCommand(t, 'dump', '--socket', socket, '--guest', 'nobody')
  t.is(none.status, 1)
  t.regex(none.stderr, /There is no guest nobody here now.*ERR_UFFD_CONTROL/)
})

test('stop comes back when the server has ended: its trace is saved, its sockets are gone', async (t) => {
  const trace = join(temporaryDirectory(t), 'trace')
  const { command, socket, control, guest } = await running(t, '--trace', trace)
  const vm = await guest()
  await vm.wrong(0, 8, 'source')
  const stopped = await runCommand(t, 'stop', '--socket', socket)
  t.is(stopped.status, 0, stopped.stderr)
  const [line] = linesOf(stopped)
  t.like(line, { event: 'stopped', pid: command.pid, ends: { stopped: 1, failed: 0 } })
  t.like((line!['guests'] as object[])[0], { pid: vm.pid, reason: 'stopped' })
  // Nothing of this is waited for.
  t.true(statSync(trace).size > 0)
  t.false(existsSync(socket))
  t.false(existsSync(control))
  const { status } = await command.ended
  t.is(status, 0)
  t.like(await command.event('stopping'), { by: 'control', leavesGuests: false })
  t.like(await command.event('summary'), { stopped: 1 })
})

test('stop says it to people, and everybody who asks is told', async (t) => {
  const { command, socket } = await running(t)
  const both = await Promise.all(
    [1, 2].map(() => runCommand(t, 'stop', '--socket', socket, '--no-json')),
  )
  // The second may have come when there was nobody to ask any more.
  const told = both.filter(({ status }) => status === 0)
  t.true(told.length > 0)
  for (const { stdout } of told) t.is(stdout, `Process ${command.pid} has ended; it had no guests`)
  for (const { status, stderr } of both) {
    if (status !== 0) t.regex(stderr, /is not there|hung up|nobody's/)
  }
  t.is((await command.ended).status, 0)
})

test('stop --hand-over leaves guests to the next server, and is refused where they would be lost', async (t) => {
  const stateDir = join(temporaryDirectory(t, '/dev/shm'), 'state')
  const keeping = await running(t, '--state-dir', stateDir)
  const vm = await keeping.guest()
  const left = await runCommand(t, 'stop', '--socket', keeping.socket, '--hand-over')
  t.is(left.status, 0, left.stderr)
  t.like(linesOf(left)[0], { ends: { handedOver: 1, stopped: 0 } })
  t.is((await keeping.command.ended).status, 0)
  await vm.kill()

  const { socket, guest } = await running(t)
  const other = await guest()
  const refused = await runCommand(t, 'stop', '--socket', socket, '--hand-over')
  t.is(refused.status, 1)
  t.regex(refused.stderr, /no state directory/)
  t.is(await other.wrong(0, pages, 'source'), 0)
})

test('a server that was killed is told from one that never was, and its socket is taken over', async (t) => {
  const snapshot = snapshotFile(t, pages)
  const socket = join(dirname(snapshot), 'uffd.sock')
  const never = await runCommand(t, 'status', '--socket', socket)
  t.is(never.status, 1)
  t.regex(never.stderr, /uffd\.sock\.control is not there: is the server running/)
  const file = await runCommand(t, 'status', '--control', snapshot)
  t.is(file.status, 1)
  t.regex(file.stderr, /The control socket \/\S+ is no socket: give that of a server/)

  const args = ['--socket', socket, '--snapshot', snapshot]
  const killed = new Command(t, ...args)
  await killed.event('ready')
  killed.signal('SIGKILL')
  await killed.ended
  for (const asked of ['status', 'dump', 'stop']) {
    const { status, stderr } = await runCommand(t, asked, '--socket', socket)
    t.is(status, 1)
    t.regex(stderr, /is nobody's any more: its server was killed/)
  }
  await new Command(t, ...args).event('ready')
  t.is((await runCommand(t, 'status', '--socket', socket)).status, 0)
})

test('a frozen server is said to be one, and answers later', async (t) => {
  const { command, socket, guest } = await running(t)
  await guest()
  command.signal('SIGSTOP')
  try {
    for (const asked of ['status', 'dump', 'stop']) {
      const args = [asked, '--socket', socket, '--timeout', '500ms']
      const { status, stderr } = await runCommand(t, ...args)
      t.is(status, 1)
      t.regex(stderr, /did not answer within 500 ms: it is frozen or busy/)
    }
  } finally {
    command.signal('SIGCONT')
  }
  // It may have read the question that nobody waits for any more.
  const { status, stderr } = await runCommand(t, 'stop', '--socket', socket)
  if (status !== 0) t.regex(stderr, /is not there|hung up/)
  t.is((await command.ended).status, 0)
})

test('--control says where, or that there is none', async (t) => {
  const control = join(temporaryDirectory(t), 'ctl')
  const { socket } = await running(t, '--control', control)
  t.false(existsSync(`${socket}.control`))
  t.is((await runCommand(t, 'status', '--control', control)).status, 0)
  const none = await running(t, '--control', 'off')
  t.is((await runCommand(t, 'status', '--socket', none.socket)).status, 1)
})

test('where nobody asked for it, it is no reason not to serve', async (t) => {
  const snapshot = snapshotFile(t, pages)
  const socket = join(dirname(snapshot), 'uffd.sock')
  const args = ['--socket', socket, '--snapshot', snapshot]
  const file = `${socket}.control`
  writeFileSync(file, 'my own')
  const command = new Command(t, ...args)
  t.like(await command.event('no-control'), { level: 'warn', code: 'ERR_UFFD_CONTROL' })
  await command.event('ready')
  command.signal('SIGTERM')
  t.is((await command.ended).status, 0)
  t.is(statSync(file).size, 6)

  const asked = await runCommand(t, ...args, '--control', file)
  t.is(asked.status, 1)
  t.regex(asked.stderr, /exists and is not a socket.*ERR_UFFD_CONTROL/)
})

test('which server is meant has to be said, once', async (t) => {
  for (const args of [
    [],
    ['--socket', '/s', '--control', '/c'],
    ['--socket', `/${'x'.repeat(101)}`],
  ]) {
    const { status, stderr } = await runCommand(t, 'status', ...args)
    t.is(status, 2, stderr)
    t.regex(stderr, /--socket/)
  }
})

/** Somebody else who listens at a control socket. */
async function stranger(t: ExecutionContext, answer: RequestListener): Promise<string> {
  const path = join(temporaryDirectory(t), 'control')
  const server = createServer(answer).listen(path)
  t.teardown(() => {
    server.closeAllConnections()
    server.close()
  })
  await once(server, 'listening')
  return path
}

test('who answers otherwise than a server is not believed, and commands no terminal', async (t) => {
  for (const [body, says] of [
    ['<html>\n', /answered what is no JSON/],
    ['{"protocol":2}\n', /speaks version 2 of the protocol, and this command 1/],
    ['{"protocol":1}\n', /did not answer as a server of uffd-rs/],
    ['[]\n', /did not answer as a server of uffd-rs/],
    ['{"protocol":1', /half a line/],
    ['{"protocol":"\\u001b[2J\\u009b2J"}\n', /version "\?\[2J\?2J"/],
  ] as const) {
    const control = await stranger(t, (_request, response) => response.end(body))
    for (const asked of ['status', 'stop']) {
      const { status, stdout, stderr } = await runCommand(t, asked, '--control', control)
      t.is(status, 1, body)
      t.is(stdout, '', body)
      t.regex(stderr, says, body)
    }
  }
  const refusing = await stranger(t, (_request, response) => {
    response.writeHead(500).end('no \u001B[31mway')
  })
  const { stderr } = await runCommand(t, 'dump', '--control', refusing)
  t.regex(stderr, /refused: no \?\[31mway \(HTTP 500\)/)
})

test('tags and jails of guests are shown where there are any', async (t) => {
  const guest = (id: string, tags: object, root: string) => ({
    id,
    pid: 7,
    peer: { root },
    tags,
    memoryBytes: 4096,
    pageSize: 4096,
    tracking: 'off',
    counters: { readFaults: 1, writeFaults: 0, protectFaults: 0 },
    pages: { unfaulted: 0, clean: 1, zero: 0, dirty: 0, removed: 0, poisoned: 0 },
    now: { faultsInHand: 0, prefaultPendingPages: 0 },
    latencyMicros: { count: 1, mean: 1, p50: 5, p99: null },
  })
  const status = {
    protocol: 1,
    version: '9.9.9',
    pid: 1,
    uptimeMs: 1,
    socket: '/s',
    snapshot: '/m',
    accepts: false,
    arrived: 2,
    refused: 1,
    ends: { exited: 3, stopped: 0, handedOver: 0, released: 0, failed: 0 },
    guests: [guest('a', { vm: 'vm-\u001b7' }, '/srv/jail/vm-7/root'), guest('b', {}, '/')],
  }
  const control = await stranger(t, (_request, response) => {
    response.end(`${JSON.stringify(status)}\n`)
  })
  const { stdout } = await runCommand(t, 'status', '--control', control, '--no-json')
  t.regex(stdout, /on +\/s, where it accepts no more guests$/m)
  t.regex(stdout, /guests +2 served now, 3 exited, 1 refused$/m)
  t.regex(stdout, /^guest +pid +tags +jail /m)
  t.regex(stdout, /^ +a +7 +vm=vm-\?7 +\/srv\/jail\/vm-7\/root .* over 10 s /m)
})

test('one that hangs up on a stop has not ended in order', async (t) => {
  const control = await stranger(t, (_request, response) => {
    response.write('{"protocol":1,"pid":1,"guests":0}\n', () => response.destroy())
  })
  const { status, stderr } = await runCommand(t, 'stop', '--control', control)
  t.is(status, 1)
  t.regex(stderr, /told to stop process 1, which has not ended in order/)
})

const listenAs = `
  process.setgid(65534)
  process.setuid(65534)
  require('node:http').createServer((_request, response) => response.end('{}'))
    .listen(process.argv[1], () => console.log('listening'))`

const asRoot = process.geteuid?.() === 0 ? test.serial : test.skip

asRoot('a socket of another user is not asked', async (t) => {
  const path = join(temporaryDirectory(t), 'control')
  const { chmodSync } = await import('node:fs')
  chmodSync(dirname(path), 0o777)
  const child = spawn(process.execPath, ['-e', listenAs, path], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  t.teardown(() => child.kill('SIGKILL'))
  await once(child.stdout, 'data')
  const { geteuid } = process
  // Root may ask everybody; this is who is not root.
  process.geteuid = () => 54_321
  try {
    await t.throwsAsync(
      ask({ control: path, path: '/status', timeoutMs: 60_000 }, () => 'last'),
      { code: 'ERR_UFFD_CONTROL', message: /is listened on by user 65534, and this is user 54321/ },
    )
  } finally {
    process.geteuid = geteuid!
  }
})
