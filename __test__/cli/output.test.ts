import { PassThrough } from 'node:stream'
import { WriteStream } from 'node:tty'
import test from 'ava'
import { type Stats } from '../../src/index.js'
import { faultRate, type GuestFigures } from '../../src/cli/output/figures.js'
import { humanOutput } from '../../src/cli/output/human.js'
import { bytes, micros, several } from '../../src/numbers.js'
import { table } from '../../src/cli/output/table.js'

const stats = {
  uptimeMs: 1000,
  faults: 1234,
  pages: { unfaulted: 100, faulted: 200, removed: 3, poisoned: 0 },
  latency: { p50: 9.5, p99: 1500, max: 2_000_000 },
} as Stats

const figures = (guest: number, faultsPerSecond = 10): GuestFigures => {
  return { guest, pid: 4000 + guest, faultsPerSecond, pageSize: 4096, stats }
}

const room = { columns: 200, rows: 24 }

test('numbers are short', (t) => {
  t.deepEqual([0, 1023, 1536, 3 * 2 ** 30].map(bytes), ['0 B', '1,023 B', '1.5 KiB', '3 GiB'])
  t.deepEqual([9.54, 150, 1500, 2_000_000].map(micros), ['9.5 µs', '150 µs', '1.5 ms', '2 s'])
  t.deepEqual(
    [0, 1, 2000].map((count) => several(count, 'page')),
    ['0 pages', '1 page', '2,000 pages'],
  )
})

test('the table has a row for each guest, in columns', (t) => {
  const [titles, row, ...rest] = table([figures(1)], room)
  t.is(rest.length, 0)
  const cells = (line = '') => line.trim().split(/ {2,}/).join('|')
  t.is(cells(titles), 'guest|faults/s|p99|faulted|pid|unfaulted|removed|p50|max|faults')
  t.is(cells(row), '1|10|1.5 ms|800 KiB|4001|400 KiB|12 KiB|9.5 µs|2 s|1,234')
  t.is(titles?.length, row?.length)
})

test('the table fits the terminal, and shows the busiest guests', (t) => {
  const guests = Array.from({ length: 50 }, (_, index) => figures(index + 1, index))
  const lines = table(guests, { columns: 40, rows: 14 })
  t.true(lines.length <= 14 - 2)
  for (const line of lines) t.true(line.length < 40)
  t.regex(lines.at(-1) ?? '', /and 40 more/)
  t.regex(lines[1] ?? '', /^ +41 /)
  const [lost] = guests
  const poisoned = { ...stats, pages: { ...stats.pages, poisoned: 1 } }
  const [titles, first] = table([{ ...lost!, stats: poisoned }, ...guests.slice(1)], {
    columns: 40,
    rows: 14,
  })
  t.regex(titles ?? '', /^guest +faults\/s +poisoned/)
  t.regex(first ?? '', /^ +1 +0 +1 /)
})

test('what matters less is left out first, and no line is cut in the middle of a column', (t) => {
  const guests = [figures(1), figures(2, 1_000_000)]
  const [whole = ''] = table(guests, room)
  const all = whole.trim().split(/ {2,}/)
  for (let columns = 8; columns <= 120; columns++) {
    const [titles = '', ...rows] = table(guests, { columns, rows: 24 })
    const shown = titles.trim().split(/ +/)
    t.deepEqual(shown, all.slice(0, shown.length), `${columns}`)
    for (const line of [titles, ...rows]) t.true(line.length < columns)
    if (shown.length < all.length) {
      const [next = ''] = table(guests, { columns: columns + 20, rows: 24 })
      t.true(next.trim().split(/ +/).length > shown.length, `${columns}`)
    }
  }
})

test('how far a prefetch or a release has come is shown, as a bar where there is room', (t) => {
  const at = (share: number) => ({ ...figures(1), progress: { of: 'prefetch', share } as const })
  const cell = (share: number, columns: number) =>
    table([at(share)], { columns, rows: 24 })[1] ?? ''
  t.regex(cell(0, 200), / ░{12} {3}0 % /)
  t.regex(cell(0.5, 200), / █{6}░{6} {2}50 % /)
  t.regex(cell(0.999, 200), / █{11}░ {2}99 % /)
  t.regex(cell(1, 200), / █{12} 100 % /)
  t.regex(cell(0.5, 50), / 50 % /)
  t.notRegex(cell(0.5, 50), /█/)
  const both = [at(0.5), { ...figures(2), progress: { of: 'release', share: 0.25 } as const }]
  const [titles, first, second] = table(both, room)
  t.regex(titles ?? '', /prefetch +release/)
  t.regex(first ?? '', / 50 % /)
  t.regex(second ?? '', / 25 % /)
})

test('faults are counted between two looks', (t) => {
  t.is(faultRate(undefined, stats), 1234)
  t.is(faultRate(stats, { ...stats, uptimeMs: 1500, faults: 1334 }), 200)
  t.is(faultRate(stats, stats), 0)
})

const xterm: NodeJS.ProcessEnv = { TERM: 'xterm' }
process.env['TERM'] = xterm['TERM']

/** A terminal of this size, or a file. */
function screen(isTTY: boolean, size = { columns: 120, rows: 24 }, env = xterm) {
  const hasColors = () => WriteStream.prototype.hasColors.call(stream, 16, env)
  const stream = Object.assign(new PassThrough(), { isTTY, ...size, hasColors })
  return { stream: stream as unknown as WriteStream, text: () => String(stream.read() ?? '') }
}

test('on a terminal the table stays below what happens', (t) => {
  const { stream, text } = screen(true)
  const output = humanOutput('info', stream)
  output.figures(figures(1))
  output.tell('info', { event: 'x' }, 'first')
  output.tell('warn', { event: 'x' }, 'second')
  output.end()
  const [, first, second] = text().split(/first|second/)
  t.regex(first ?? '', /guest +faults[^]+4001/)
  // Two lines up, and everything below is cleared, before the next line is written.
  t.true(first?.includes('\u001B[2A\r\u001B[J'))
  t.true(second?.endsWith('\u001B[2A\r\u001B[J'))
})

test('in a file there are lines, without colours and without what is not important', (t) => {
  const { stream, text } = screen(false)
  const output = humanOutput('warn', stream)
  output.tell('info', { event: 'x' }, 'unimportant')
  output.tell('error', { event: 'x' }, 'important')
  output.figures(figures(1))
  output.end()
  t.is(text(), 'important\n')
})

test('errors are red, unless colours are not wanted', (t) => {
  for (const [env, expected] of [
    [xterm, '\u001B[31mfailed\u001B[0m\n'],
    [{ ...xterm, NO_COLOR: '1' }, 'failed\n'],
  ] as const) {
    const { stream, text } = screen(true, undefined, env)
    humanOutput('info', stream).tell('error', { event: 'x' }, 'failed')
    t.is(text(), expected)
  }
})

test('a terminal that does not tell its size has a usual one', (t) => {
  const { stream, text } = screen(true, { columns: 0, rows: 0 })
  const output = humanOutput('info', stream)
  output.figures(figures(1))
  output.tell('info', { event: 'x' }, 'something')
  output.end()
  t.regex(text(), /guest +faults\/s/)
})

test('a terminal that cannot go back gets lines', (t) => {
  const { stream, text } = screen(true)
  process.env['TERM'] = 'dumb'
  try {
    humanOutput('info', stream).figures(figures(1))
  } finally {
    process.env['TERM'] = xterm['TERM']
  }
  t.regex(text(), /^guest 1: 10 faults\/s, .*\n$/)
})
