import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { CommandProcess, runCommand } from '../support/command.js'
import { GuestProcess } from '../support/guest.js'
import { isAsItWas, live, pages as placePages, Place } from '../support/place.js'
import { snapshotFile } from '../support/stage.js'

const pages = 256

/** Serves a guest that reads some pages, and ends. */
async function served(t: ExecutionContext, directory: string, snapshot: string, ...more: string[]) {
  const socket = join(directory, 'uffd.sock')
  const args = ['--socket', socket, '--snapshot', snapshot, '--once', '--fault-around', 'off']
  const command = new CommandProcess(t, ...args, ...more)
  await command.event('ready')
  const guest = await GuestProcess.start(socket, String(pages))
  t.teardown(() => guest.kill())
  t.is(await guest.wrong(0, 100, 'source'), 0)
  await guest.exit()
  return { command, ended: await command.ended }
}

test('--report saves a page when a guest ends, and report makes one of a trace', async (t) => {
  const snapshot = snapshotFile(t, pages)
  const directory = dirname(snapshot)
  const page = join(directory, 'run.html')
  const trace = join(directory, 'run.trace')
  const { command, ended } = await served(
    t,
    directory,
    snapshot,
    '--report',
    page,
    '--trace',
    trace,
  )
  t.is(ended.status, 0, ended.stderr)
  t.like(await command.event('report'), { guest: 1, file: page })
  const html = readFileSync(page, 'utf8')
  t.regex(html, /Guest 1 \(pid \d+\)/)
  t.notRegex(html, /taken over/)
  t.regex(html, /waited for 100 pages/)

  const lines = join(directory, 'run.json')
  writeFileSync(lines, ended.stdout)
  const into = join(directory, 'again.html')
  const made = await runCommand(
    t,
    'report',
    trace,
    '--into',
    into,
    '--stats',
    lines,
    '--prefetch',
    trace,
  )
  t.is(made.status, 0, made.stderr)
  const again = readFileSync(into, 'utf8')
  t.regex(again, /<th>foreseen<\/th><td>100<\/td>/)
  t.regex(again, /<th>missed<\/th><td>0<\/td>/)
  t.regex(again, /<th>read faults<\/th><td>100<\/td>/)

  const map = await runCommand(t, 'trace', 'show', trace, '--map')
  t.is(map.status, 0, map.stderr)
  t.regex(map.stdout, /^ {7}0 B {2}█{64}$/m)
  t.regex(map.stdout, /each character 1 page/)
  t.is((await runCommand(t, 'trace', 'show', trace, '--map', '--json')).status, 2)
})

test('each guest has a report of its own', async (t) => {
  const snapshot = snapshotFile(t, pages)
  const directory = dirname(snapshot)
  const socket = join(directory, 'uffd.sock')
  const page = join(directory, 'run.html')
  const command = new CommandProcess(
    t,
    '--socket',
    socket,
    '--snapshot',
    snapshot,
    '--report',
    page,
  )
  await command.event('ready')
  for (const [at, count] of [100, 200].entries()) {
    const guest = await GuestProcess.start(socket, String(pages))
    t.teardown(() => guest.kill())
    t.is(await guest.wrong(0, count, 'source'), 0)
    await guest.exit()
    await command.event('report', at)
  }
  command.signal('SIGTERM')
  t.is((await command.ended).status, 0)
  t.regex(readFileSync(page, 'utf8'), /<h1>Guest 1 /)
  t.regex(readFileSync(join(directory, 'run-2.html'), 'utf8'), /<h1>Guest 2 /)
})

/** A command with a report and a state directory, and a guest whose command was killed. */
async function leftByAnother(t: ExecutionContext) {
  const { socket, snapshot, stateDir } = new Place(t).options()
  const page = join(dirname(socket), 'run.html')
  const exact = ['--fault-around', 'off', '--report', page]
  const args = ['--socket', socket, '--snapshot', snapshot, '--state-dir', stateDir, ...exact]
  const first = new CommandProcess(t, ...args)
  await first.event('ready')
  const guest = await GuestProcess.start(socket, String(placePages))
  t.teardown(() => guest.kill())
  await live(guest)
  first.signal('SIGKILL')
  await first.ended
  t.false(existsSync(page))
  return { page, guest, next: () => new CommandProcess(t, ...args) }
}

test('a guest that was taken over has a report of all of its memory', async (t) => {
  const { page, guest, next } = await leftByAnother(t)
  const command = next()
  await command.event('ready')
  await isAsItWas(t, guest)
  await guest.exit()
  t.like(await command.event('report'), { guest: 1, file: page })
  command.signal('SIGTERM')
  t.is((await command.ended).status, 0)
  const html = readFileSync(page, 'utf8')
  t.regex(html, /taken over: latencies are since then/)
  // It wrote and gave back before the first of its servers was killed.
  t.regex(html, /written \(8 KiB\)/)
  t.regex(html, /zeros \(16 KiB\)/)
  t.regex(html, /<th>removed pages<\/th><td>4<\/td>/)
  // Two of them were written then: 5, 6 and 7 are never touched.
  t.regex(html, /aria-label="61 first touches/)
  t.regex(html, /4 pages that had been given back/)
})

test('a guest that ended while nobody served it has no report, and takes none from the next', async (t) => {
  const { page, guest, next } = await leftByAnother(t)
  await guest.kill()
  const command = next()
  t.is(((await command.event('swept'))['ledgers'] as string[]).length, 1)
  const { socket } = await command.event('ready')
  t.false(existsSync(page))
  const other = await GuestProcess.start(socket as string, String(placePages))
  t.teardown(() => other.kill())
  t.is(await other.wrong(0, placePages, 'source'), 0)
  await other.exit()
  t.like(await command.event('report'), { guest: 1, file: page })
  command.signal('SIGTERM')
  t.is((await command.ended).status, 0)
  t.regex(readFileSync(page, 'utf8'), new RegExp(`pid ${other.pid}`))
})

test('a report that cannot be saved is refused before anything is served', async (t) => {
  const snapshot = snapshotFile(t, pages)
  const directory = dirname(snapshot)
  const args = ['--socket', join(directory, 'uffd.sock'), '--snapshot', snapshot]
  const wrong = await runCommand(t, ...args, '--report', join(directory, 'report.txt'))
  t.is(wrong.status, 2)
  const precious = join(directory, 'precious.html')
  writeFileSync(precious, 'my own')
  const refused = await runCommand(t, ...args, '--report', precious)
  t.is(refused.status, 1)
  t.regex(refused.stderr, /ERR_UFFD_REPORT/)
  t.is(readFileSync(precious, 'utf8'), 'my own')
  t.false(existsSync(join(directory, 'uffd.sock')))
})

test('statistics that are none are refused', async (t) => {
  const snapshot = snapshotFile(t, pages)
  const directory = dirname(snapshot)
  const trace = join(directory, 'run.trace')
  await served(t, directory, snapshot, '--trace', trace)
  const into = join(directory, 'report.html')
  const report = (stats: string) => runCommand(t, 'report', trace, '--into', into, '--stats', stats)
  const lines = join(directory, 'lines.json')
  for (const text of ['', 'nonsense', '{"event":"end"}', '{"event":"end","stats":{}}', '[1]']) {
    writeFileSync(lines, text)
    const { status, stderr } = await report(lines)
    t.is(status, 1, text)
    t.regex(stderr, /ERR_UFFD_REPORT/, text)
  }
  t.is((await report(join(directory, 'missing.json'))).status, 1)
  t.false(existsSync(into))
})
