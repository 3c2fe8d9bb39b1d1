import type { GuestFigures } from './figures.js'
import { bytes, micros, whole } from '../../numbers.js'

/** How much room there is. */
export interface Room {
  readonly columns: number
  readonly rows: number
}

interface Column {
  readonly title: string
  readonly of: (figures: GuestFigures) => string
}

const memory = (state: 'unfaulted' | 'faulted' | 'removed'): Column => ({
  title: state,
  of: ({ stats, pageSize }) => bytes(stats.pages[state] * pageSize),
})

const columns: readonly Column[] = [
  { title: 'guest', of: ({ guest }) => `${guest}` },
  { title: 'pid', of: ({ pid }) => `${pid ?? '-'}` },
  { title: 'faults/s', of: ({ faultsPerSecond }) => whole(faultsPerSecond) },
  { title: 'faults', of: ({ stats }) => whole(stats.faults) },
  { title: 'p50', of: ({ stats }) => micros(stats.latency.p50) },
  { title: 'p99', of: ({ stats }) => micros(stats.latency.p99) },
  { title: 'max', of: ({ stats }) => micros(stats.latency.max) },
  memory('unfaulted'),
  memory('faulted'),
  memory('removed'),
  { title: 'poisoned', of: ({ stats }) => whole(stats.pages.poisoned) },
]

/** Lines kept free above the table, for what happens. */
const free = 4

/** The guests that fault most, as lines no wider than the terminal. */
export function table(guests: readonly GuestFigures[], room: Room): string[] {
  if (guests.length === 0) return []
  const most = Math.max(1, room.rows - free)
  const busiest = guests.toSorted((one, other) => other.faultsPerSecond - one.faultsPerSecond)
  const shown = new Set(busiest.slice(0, most))
  // In the order they came: rows that change places cannot be read.
  const rows = guests.filter((guest) => shown.has(guest))
  const cells = [
    columns.map(({ title }) => title),
    ...rows.map((row) => columns.map(({ of }) => of(row))),
  ]
  const widths = columns.map((_, column) => Math.max(...cells.map((row) => row[column]!.length)))
  const lines = cells.map((row) => row.map((cell, at) => cell.padStart(widths[at]!)).join('  '))
  const left = guests.length - rows.length
  if (left > 0) lines.push(`and ${whole(left)} more, with fewer faults`)
  return lines.map((line) => line.slice(0, Math.max(1, room.columns - 1)))
}

/** The same for one guest, as a line of a log. */
export function figuresLine({ guest, faultsPerSecond, pageSize, stats }: GuestFigures): string {
  const { pages, latency } = stats
  const size = (count: number) => bytes(count * pageSize)
  const states = [
    `unfaulted ${size(pages.unfaulted)}`,
    `faulted ${size(pages.faulted)}`,
    `removed ${size(pages.removed)}`,
    ...(pages.poisoned > 0 ? [`poisoned ${size(pages.poisoned)}`] : []),
  ]
  const times = `p50 ${micros(latency.p50)}, p99 ${micros(latency.p99)}`
  return `guest ${guest}: ${whole(faultsPerSecond)} faults/s, ${times}; ${states.join(', ')}`
}
