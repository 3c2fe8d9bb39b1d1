// The live table in a terminal of the kernel's, as somebody sees it who looks at it.
import { dirname, join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { Trace } from '../../src/index.js'
import { CommandProcess } from '../support/command.js'
import { GuestProcess } from '../support/guest.js'
import { snapshotFile, temporaryDirectory } from '../support/stage.js'
import { touches } from '../support/touches.js'
import { canMakeTerminals, type Size, TerminalProcess } from '../support/terminal.js'

const pages = 64
const titles = /^guest +faults\/s/

/** A server of the command in a terminal, with guests that have its table filled. */
async function shown(t: ExecutionContext, size: Size, guests: number) {
  const snapshot = snapshotFile(t, pages)
  const socket = join(dirname(snapshot), 'uffd.sock')
  const args = ['--socket', socket, '--snapshot', snapshot, '--stats', '100ms']
  const terminal = new TerminalProcess(t, size, ...args)
  await terminal.until((lines) => lines.some((line) => line.startsWith('Ready: ')))
  for (let count = 0; count < guests; count++) {
    const guest = await GuestProcess.start(socket, `${pages}`)
    t.teardown(() => guest.kill())
  }
  return terminal
}

const count = (lines: readonly string[], pattern: RegExp) =>
  lines.filter((line) => pattern.test(line)).length

/** Rows of the table: the numbers of guests, aligned to the right below their title. */
const rowsOf = (lines: readonly string[]) => {
  const at = lines.findIndex((line) => titles.test(line))
  return at < 0 ? [] : lines.slice(at + 1).filter((line) => /^ {4}\d /.test(line))
}

for (const cols of [40, 80, 200]) {
  test(`the table fits a terminal of ${cols} columns`, async (t) => {
    if (!(await canMakeTerminals())) return void t.pass('no terminals can be made here')
    const terminal = await shown(t, { cols, rows: 24 }, 3)
    const lines = await terminal.until((all) => rowsOf(all).length === 3)
    t.is(count(lines, titles), 1)
    t.is(terminal.wrapped(titles), 0)
    t.is(terminal.wrapped(/^ {4}\d /), 0)
    const line = lines.find((one) => titles.test(one))
    t.is(line!.includes('faulted'), true)
    t.is(line!.endsWith('faults'), cols > 40)
    terminal.interrupt()
    t.is(await terminal.ended, 0)
    t.is(count(terminal.lines, titles), 0)
    t.is(count(terminal.lines, /^Guest \d \(pid/), 3)
  })
}

test('the table fits after its terminal was made narrow, wide, low and high', async (t) => {
  if (!(await canMakeTerminals())) return void t.pass('no terminals can be made here')
  const terminal = await shown(t, { cols: 200, rows: 24 }, 3)
  await terminal.until((all) => rowsOf(all).length === 3)
  const is = (width: number) => (all: readonly string[]) => {
    const found = all.filter((line) => titles.test(line))
    return found.length === 1 && rowsOf(all).length === 3 && width === found[0]!.length
  }
  const wide = terminal.lines.find((line) => titles.test(line))!.length
  for (const cols of [40, 80, 35, 200, 60, 200]) {
    await terminal.resize({ cols, rows: 24 })
    if (cols === 200) await terminal.until(is(wide))
    else {
      await terminal.until(
        (all) =>
          count(all, titles) === 1 &&
          rowsOf(all).length === 3 &&
          all.find((line) => titles.test(line))!.length < cols &&
          terminal.wrapped(titles) === 0,
      )
    }
    t.is(terminal.wrapped(/^ {4}\d /), 0)
  }
  await terminal.resize({ cols: 80, rows: 6 })
  await terminal.until((all) => all.some((line) => line.startsWith('and 1 more')))
  await terminal.resize({ cols: 80, rows: 40 })
  await terminal.until((all) => rowsOf(all).length === 3 && count(all, /^and /) === 0)
  // Nothing of what was said above it was lost, or said twice.
  const said = terminal.lines.join('')
  for (const number of [1, 2, 3]) t.is(said.split(`Guest ${number} (pid`).length - 1, 1)
  t.is(said.split('Ready: ').length - 1, 1)
  terminal.interrupt()
  t.is(await terminal.ended, 0)
})

test('a second signal leaves no table behind', async (t) => {
  if (!(await canMakeTerminals())) return void t.pass('no terminals can be made here')
  const terminal = await shown(t, { cols: 80, rows: 24 }, 1)
  await terminal.until((all) => rowsOf(all).length === 1)
  terminal.interrupt()
  terminal.interrupt()
  await terminal.ended
  t.is(count(terminal.lines, titles), 0)
})

test('statistics say how far a prefetch has come', async (t) => {
  const many = 16_384
  const snapshot = snapshotFile(t, many)
  const file = join(temporaryDirectory(t), 'trace')
  const all = Array.from({ length: many }, (_, page) => page)
  const trace = await Trace.record(touches(...all), { snapshot, pageSize: 4096 })
  await trace.save(file)
  const socket = join(dirname(snapshot), 'uffd.sock')
  const args = ['--socket', socket, '--snapshot', snapshot, '--prefetch', file, '--stats', '1ms']
  const command = new CommandProcess(t, ...args)
  await command.event('ready')
  for (let guests = 0; ; guests++) {
    const guest = await GuestProcess.start(socket, `${many}`)
    t.teardown(() => guest.kill())
    await command.event('prefetch', guests)
    await guest.kill()
    const told = command.events.flatMap(({ event, progress }) =>
      event === 'stats' && progress !== undefined
        ? [progress as { of: string; share: number }]
        : [],
    )
    // A prefetch may be over before anybody looks.
    if (told.length === 0) continue
    for (const { of, share } of told) {
      t.is(of, 'prefetch')
      t.true(share >= 0 && share <= 1)
    }
    break
  }
})
