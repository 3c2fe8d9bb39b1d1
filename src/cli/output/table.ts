import { bytes, micros, whole } from '../../numbers.js'
import { type Column, columnsOf } from './columns.js'
import type { GuestFigures, Progress } from './figures.js'

/** How much room there is. */
export interface Room {
  readonly columns: number
  readonly rows: number
}

const memory = (state: 'unfaulted' | 'faulted' | 'removed'): Column<GuestFigures> => ({
  title: state,
  of: ({ stats, pageSize }) => bytes(stats.pages[state] * pageSize),
})

const poisoned: Column<GuestFigures> = {
  title: 'poisoned',
  of: ({ stats }) => whole(stats.pages.poisoned),
}

/** What is done in the background, while something is. */
const background = (kind: Progress['of']): Column<GuestFigures> => ({
  title: kind,
  of: ({ progress }) => (progress?.of === kind ? percent(progress.share) : ''),
  wide: ({ progress }) =>
    progress?.of === kind ? `${bar(progress.share)} ${percent(progress.share).padStart(5)}` : '',
})

const barLength = 12

const bar = (share: number) => {
  const full = Math.floor(share * barLength)
  return '█'.repeat(full) + '░'.repeat(barLength - full)
}

/** Only what is done is 100 %. */
const percent = (share: number) => `${Math.floor(share * 100)} %`

/** The columns, the more important the sooner; those that have nothing to tell are left out. */
function columnsFor(guests: readonly GuestFigures[]): Column<GuestFigures>[] {
  const isPoisoned = guests.some(({ stats }) => stats.pages.poisoned > 0)
  const kinds = (['prefetch', 'release'] as const).filter((kind) =>
    guests.some(({ progress }) => progress?.of === kind),
  )
  return [
    { title: 'guest', of: ({ guest }) => `${guest}` },
    { title: 'faults/s', of: ({ faultsPerSecond }) => whole(faultsPerSecond) },
    ...(isPoisoned ? [poisoned] : []),
    { title: 'p99', of: ({ stats }) => micros(stats.latency.p99) },
    ...kinds.map(background),
    memory('faulted'),
    { title: 'pid', of: ({ pid }) => `${pid ?? '-'}` },
    memory('unfaulted'),
    memory('removed'),
    { title: 'p50', of: ({ stats }) => micros(stats.latency.p50) },
    { title: 'max', of: ({ stats }) => micros(stats.latency.max) },
    { title: 'faults', of: ({ stats }) => whole(stats.faults) },
  ]
}

/** Lines kept free above the table, for what happens. */
const free = 4

/** The guests that fault most, as lines no wider than the terminal. */
export function table(guests: readonly GuestFigures[], room: Room): string[] {
  if (guests.length === 0) return []
  const most = Math.max(1, room.rows - free)
  const shown = new Set(guests.toSorted(byImportance).slice(0, most))
  // In the order they came: rows that change places cannot be read.
  const rows = guests.filter((guest) => shown.has(guest))
  // A line as wide as the terminal would begin another one.
  const width = Math.max(1, room.columns - 1)
  const lines = columnsOf(columnsFor(guests), rows, width)
  const left = guests.length - rows.length
  if (left > 0) lines.push(`and ${whole(left)} more, with fewer faults`.slice(0, width))
  return lines
}

/** Those that lost pages, then those that fault most. */
const byImportance = (one: GuestFigures, other: GuestFigures) =>
  other.stats.pages.poisoned - one.stats.pages.poisoned ||
  other.faultsPerSecond - one.faultsPerSecond

/** The same for one guest, as a line of a log. */
export function figuresLine(figures: GuestFigures): string {
  const { guest, faultsPerSecond, pageSize, stats, progress } = figures
  const { pages, latency } = stats
  const size = (count: number) => bytes(count * pageSize)
  const states = [
    `unfaulted ${size(pages.unfaulted)}`,
    `faulted ${size(pages.faulted)}`,
    `removed ${size(pages.removed)}`,
    ...(pages.poisoned > 0 ? [`poisoned ${size(pages.poisoned)}`] : []),
    ...(progress === undefined ? [] : [`${progress.of} ${percent(progress.share)}`]),
  ]
  const times = `p50 ${micros(latency.p50)}, p99 ${micros(latency.p99)}`
  return `guest ${guest}: ${whole(faultsPerSecond)} faults/s, ${times}; ${states.join(', ')}`
}
