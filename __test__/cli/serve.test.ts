import { spawn } from 'node:child_process'
import { closeSync, existsSync, openSync, readFileSync, truncateSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { once } from 'node:events'
import { dirname, join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import native from '#native'
import { type Stats, Trace } from '../../src/index.js'
import { cli, CommandProcess, runCommand } from '../support/command.js'
import { deadlineMs, GuestProcess } from '../support/guest.js'
import { snapshotFile } from '../support/stage.js'
import { touches } from '../support/touches.js'

const pages = 256

/** A snapshot, and the command that serves it. */
function place(t: ExecutionContext) {
  const snapshot = snapshotFile(t, pages)
  const socket = join(dirname(snapshot), 'uffd.sock')
  return { snapshot, socket, args: ['--socket', socket, '--snapshot', snapshot] }
}

async function start(t: ExecutionContext, socket: string): Promise<GuestProcess> {
  const guest = await GuestProcess.start(socket, String(pages))
  t.teardown(() => guest.kill())
  return guest
}

/** The same for a command that says nothing: tries until somebody listens. */
async function startSomehow(t: ExecutionContext, socket: string): Promise<GuestProcess> {
  for (;;) {
    try {
      return await start(t, socket)
    } catch (error) {
      if (!/No such file|Connection refused/.test((error as Error).message)) throw error
    }
  }
}

test('it serves a guest, tells of it in JSON lines, and ends with 0', async (t) => {
  const { args, socket, snapshot } = place(t)
  const command = new CommandProcess(t, ...args, '--once', '--stats', '50ms')
  const ready = await command.event('ready')
  t.like(ready, { level: 'info', socket, snapshot, snapshotBytes: pages * 4096 })

  const guest = await start(t, socket)
  t.is(await guest.wrong(0, pages, 'source'), 0)
  t.like(await command.event('guest'), { guest: 1, pid: guest.pid, pageSize: 4096 })
  const { stats } = (await command.event('stats')) as unknown as { stats: Stats }
  t.is(typeof stats.latency.p99, 'number')
  await guest.exit()

  const { status, stderr } = await command.ended
  t.is(stderr, '')
  t.is(status, 0)
  const end = await command.event('end')
  t.is(end['reason'], 'guest-exited')
  t.is((end['stats'] as Stats).pages.faulted, pages)
  t.like(await command.event('summary'), { exited: 1, stopped: 0, failed: 0, refused: 0 })
  t.false(existsSync(socket))
})

test('text says the same to people', async (t) => {
  const { args, socket } = place(t)
  const command = new CommandProcess(t, ...args, '--once', '--no-json')
  await command.line(/^Ready: /)
  const guest = await start(t, socket)
  t.is(await guest.wrong(0, 8, 'source'), 0)
  await guest.exit()
  const { status, stdout } = await command.ended
  t.is(status, 0)
  t.regex(stdout, /^Ready: .*uffd\.sock serves .*mem \(1 MiB\) to one guest$/m)
  t.regex(stdout, /^Guest 1 exited\. .* faults? \(p50 .* installed, 0 pages removed$/m)
  t.regex(stdout, /^Served 1 guest in .*: 1 exited, 0 stopped, 0 failed, 0 refused; \d+ faults?$/m)
})

for (const signal of ['SIGTERM', 'SIGINT'] as const) {
  test(`${signal} ends it in good order while guests are running`, async (t) => {
    const { args, socket } = place(t)
    const command = new CommandProcess(t, ...args)
    await command.event('ready')
    const guests = await Promise.all([start(t, socket), start(t, socket)])
    for (const guest of guests) t.is(await guest.wrong(0, 4, 'source'), 0)
    await command.event('guest', 1)
    command.signal(signal)
    const { status } = await command.ended
    t.is(status, 0)
    t.is((await command.event('stopping'))['signal'], signal)
    t.like(await command.event('summary'), { stopped: 2, failed: 0 })
    t.false(existsSync(socket))
  })
}

test('a trace is saved at the end of a guest, and prefetched for the next', async (t) => {
  const { args, socket, snapshot } = place(t)
  const trace = join(dirname(snapshot), 'boot.trace')
  const first = new CommandProcess(t, ...args, '--once', '--trace', trace, '--fault-around=off')
  await first.event('ready')
  const one = await start(t, socket)
  await one.ask({ op: 'touch', page: 10, count: 20 })
  await one.exit()
  t.is((await first.ended).status, 0)
  t.like(await first.event('trace'), { file: trace, pages: 20 })

  const second = new CommandProcess(t, ...args, '--once', '--prefetch', trace, '--trace', trace)
  await second.event('ready')
  const other = await start(t, socket)
  const report = await second.event('prefetch')
  t.like(report, { requested: 20, installed: 20, failed: 0 })
  await other.ask({ op: 'touch', page: 10, count: 20 })
  await other.ask({ op: 'touch', page: 200, count: 1 })
  await other.exit()
  t.is((await second.ended).status, 0)
  // Prefetched pages are no first touches, and stay in the trace all the same.
  t.is((await second.event('trace'))['pages'], 21)
  t.is(((await second.event('end'))['stats'] as Stats).faults, 1)
})

test('a trace can be read into the memory of the host and not be installed', async (t) => {
  const { args, socket, snapshot } = place(t)
  const trace = join(dirname(snapshot), 'boot.trace')
  const first = new CommandProcess(t, ...args, '--once', '--trace', trace, '--fault-around=off')
  await first.event('ready')
  const one = await start(t, socket)
  await one.ask({ op: 'touch', page: 10, count: 20 })
  await one.exit()
  t.is((await first.ended).status, 0)

  const mode = ['--prefetch', trace, '--prefetch-mode', 'fetch', '--fault-around=off']
  const second = new CommandProcess(t, ...args, '--once', ...mode)
  await second.event('ready')
  const other = await start(t, socket)
  t.like(await second.event('prefetch'), { requested: 20, installed: 0, fetched: 20, failed: 0 })
  await other.ask({ op: 'touch', page: 10, count: 20 })
  await other.exit()
  t.is((await second.ended).status, 0)
  t.is(((await second.event('end'))['stats'] as Stats).faults, 20)
})

test('the traces of several guests become one', async (t) => {
  const { args, socket, snapshot } = place(t)
  const trace = join(dirname(snapshot), 'boot.trace')
  const command = new CommandProcess(t, ...args, '--trace', trace, '--fault-around', 'off')
  await command.event('ready')
  for (const page of [0, 100]) {
    const guest = await start(t, socket)
    await guest.ask({ op: 'touch', page, count: 10 })
    await guest.exit()
    await command.event('trace', page / 100)
  }
  command.signal('SIGTERM')
  t.is((await command.ended).status, 0)
  const { stdout } = await runCommand(t, 'trace', 'show', trace)
  t.regex(stdout, /^ {2}pages +20 /m)
})

test('the trace of another snapshot is refused before anything is served', async (t) => {
  const { args, socket, snapshot } = place(t)
  const trace = join(dirname(snapshot), 'boot.trace')
  await (await Trace.record(touches(1), { snapshot, pageSize: 4096 })).save(trace)
  native.writeGuestSnapshot({ path: snapshot, pages, seed: 9 })
  const { status, stderr } = await runCommand(t, ...args, '--prefetch', trace)
  t.is(status, 1)
  t.regex(
    stderr,
    /was recorded on a snapshot with other contents.*\(ERR_UFFD_TRACE_WRONG_SNAPSHOT\)/,
  )
  t.false(existsSync(socket))
})

test('a trace that cannot be saved is told at the start', async (t) => {
  const { args, snapshot } = place(t)
  const { status, stderr } = await runCommand(t, ...args, '--trace', join(snapshot, 'no', 'where'))
  t.is(status, 1)
  t.regex(stderr, /Cannot save a trace at .*: not a directory \(ERR_UFFD_TRACE_SAVE\)/)
})

test('where there is no directory for a trace or a report, that is told at the start', async (t) => {
  const { args } = place(t)
  for (const [option, name] of [
    ['--trace', '/nowhere/t.trace'],
    ['--report', '/nowhere/r.html'],
  ] as const) {
    const { status, stderr } = await runCommand(t, ...args, option, name)
    t.is(status, 1)
    t.regex(
      stderr,
      /Cannot save a \w+ at \/nowhere\/\S+: its directory does not exist: make it first/,
    )
  }
})

test('a trace replaces traces, and nothing else', async (t) => {
  const { args, snapshot } = place(t)
  const bytes = readFileSync(snapshot)
  for (const [file, why] of [
    [snapshot, /what is there is no trace/],
    [dirname(snapshot), /no regular file/],
  ] as const) {
    const { status, stderr } = await runCommand(t, ...args, '--trace', file)
    t.is(status, 1)
    t.regex(stderr, why)
    t.regex(stderr, /\(ERR_UFFD_TRACE_SAVE\)/)
  }
  t.deepEqual(readFileSync(snapshot), bytes)
})

test('a refused guest makes the status 1', async (t) => {
  const { args, socket } = place(t)
  const command = new CommandProcess(t, ...args, '--once')
  await command.event('ready')
  const guest = GuestProcess.start(socket, String(pages), '--raw-json', 'nonsense')
  void guest.then((process) => process.kill()).catch(() => {})
  t.is((await command.ended).status, 1)
  t.is((await command.event('refused'))['code'], 'ERR_UFFD_HANDOFF_JSON')
  t.is((await command.event('summary'))['refused'], 1)
})

test('a failed guest makes the status 1, and says which page', async (t) => {
  const { args, socket, snapshot } = place(t)
  const strict = ['--on-unservable', 'fail', '--fault-deadline', '50ms', '--kill-on-failure']
  const command = new CommandProcess(t, ...args, '--once', ...strict)
  await command.event('ready')
  truncateSync(snapshot, 4096)
  const guest = await start(t, socket)
  const touched = guest.ask({ op: 'touch', page: 128 })
  await t.throwsAsync(touched)
  t.is((await command.ended).status, 1)
  const { code, msg, reason } = await command.event('end')
  t.is(reason, 'failed')
  t.is(code, 'ERR_UFFD_PAGE')
  t.regex(String(msg), /page 128 \(snapshot offset 524288\)/)
})

test('a missing snapshot is named', async (t) => {
  const { socket, snapshot } = place(t)
  const args = ['--socket', socket, '--snapshot', `${snapshot}.not`]
  const { status, stderr } = await runCommand(t, ...args)
  t.is(status, 1)
  t.regex(stderr, /cannot open the snapshot .*mem\.not: .*\(ERR_UFFD_SNAPSHOT_MISSING\)/)
})

test('a socket path that no socket can have is a wrong command line', async (t) => {
  const { snapshot } = place(t)
  const args = ['--socket', `/tmp/${'long'.repeat(40)}`, '--snapshot', snapshot]
  const { status, stderr } = await runCommand(t, ...args)
  t.is(status, 2)
  t.regex(stderr, /--socket to be a path of at most 107 bytes, not of 165.*ERR_UFFD_INVALID_OPTION/)
})

test('a socket that is listened on is left alone', async (t) => {
  const { args, socket } = place(t)
  const other = createServer().listen(socket)
  await once(other, 'listening')
  t.teardown(() => other.close())
  const { status, stderr } = await runCommand(t, ...args)
  t.is(status, 1)
  t.regex(stderr, /ERR_UFFD_SOCKET_IN_USE/)
  t.true(existsSync(socket))
})

test('a stale socket is taken over', async (t) => {
  const { args } = place(t)
  const killed = new CommandProcess(t, ...args)
  await killed.event('ready')
  killed.signal('SIGKILL')
  await killed.ended
  const command = new CommandProcess(t, ...args)
  await command.event('ready')
  command.signal('SIGTERM')
  t.is((await command.ended).status, 0)
})

test('a file that is no socket is left alone', async (t) => {
  const { args, socket } = place(t)
  writeFileSync(socket, 'precious')
  const { status, stderr } = await runCommand(t, ...args)
  t.is(status, 1)
  t.regex(stderr, /ERR_UFFD_SOCKET_NOT_A_SOCKET/)
  t.is(readFileSync(socket, 'utf8'), 'precious')
})

test('guests are served on when nobody reads the output', async (t) => {
  const { args, socket } = place(t)
  const command = new CommandProcess(t, ...args, '--stats', '10ms')
  await command.event('ready')
  const guest = await start(t, socket)
  t.is(await guest.wrong(0, 8, 'source'), 0)
  await command.event('stats')
  command.closeOutput()
  t.is(await guest.wrong(8, pages - 8, 'source'), 0)
  await guest.exit()
  command.signal('SIGTERM')
  t.is((await command.ended).status, 0)
})

test('guests are served to their end when the output is on a full disk', async (t) => {
  const { args, socket } = place(t)
  t.timeout(deadlineMs)
  const full = openSync('/dev/full', 'w')
  const command = spawn(process.execPath, [cli, ...args, '--once', '--stats', '10ms'], {
    stdio: ['ignore', full, 'inherit'],
  })
  closeSync(full)
  t.teardown(() => command.kill('SIGKILL'))
  const ended = once(command, 'exit')
  const guest = await startSomehow(t, socket)
  t.is(await guest.wrong(0, pages, 'source'), 0)
  await guest.exit()
  t.deepEqual(await ended, [0, null])
})

test('less important lines can be left out', async (t) => {
  const { args, socket } = place(t)
  const command = new CommandProcess(t, ...args, '--once', '--log-level', 'error')
  await (await startSomehow(t, socket)).exit()
  const { status, stdout } = await command.ended
  t.is(status, 0)
  t.is(stdout, '')
})
