import { boolean, type Check, integer, object, oneOf } from '../validate.js'

/** What a traced page was filled with. */
export type FilledWith = (typeof fills)[number]

/** A guest's first touch of a page, noted once it was served. */
export interface TraceEntry {
  /** The page: its offset in the snapshot divided by the page size. */
  readonly page: number
  /** Whether the touch was a write, as far as the kernel said: a write may arrive as a read. */
  readonly write: boolean
  /**
   * What the page was filled with: the snapshot's bytes (`source`), zeros because the snapshot
   * has them (`source-zeros`) or because the guest had given the page back (`zeros`), or nothing
   * new (`present`).
   */
  readonly filledWith: FilledWith
  /** The time from the handoff until the touch was served, in microseconds. */
  readonly timeMicros: number
}

const fills = ['source', 'source-zeros', 'zeros', 'present'] as const

// An entry is two words: page in the low 48 bits, flags above it; then the time in nanoseconds.
const pageBits = 48n
const pageMask = (1n << pageBits) - 1n
const writeBit = 1n << pageBits
const fillShift = pageBits + 1n

/** The entries that the native part gives as two words each. */
export function fromWords(words: BigUint64Array): TraceEntry[] {
  return Array.from({ length: words.length / 2 }, (_, index) => entryAt(words, index)!)
}

/** The entry of this number, from 0. */
export function entryAt(words: BigUint64Array, index: number): TraceEntry | undefined {
  const bits = words[2 * index]
  const time = words[2 * index + 1]
  if (bits === undefined || time === undefined) return undefined
  return {
    page: Number(bits & pageMask),
    write: (bits & writeBit) !== 0n,
    filledWith: fills[Number((bits >> fillShift) & 3n)]!,
    timeMicros: Number(time) / 1e3,
  }
}

/** What the native part takes for entries. */
export function toWords(entries: readonly TraceEntry[]): BigUint64Array {
  const words = new BigUint64Array(2 * entries.length)
  for (const [index, { page, write, filledWith, timeMicros }] of entries.entries()) {
    const fill = BigInt(fills.indexOf(filledWith)) << fillShift
    words[2 * index] = BigInt(page) | (write ? writeBit : 0n) | fill
    words[2 * index + 1] = BigInt(Math.round(timeMicros * 1e3))
  }
  return words
}

/** Entries from outside. */
export const checkEntries: Check<TraceEntry[]> = (value, at) => {
  const isIterable = typeof value === 'object' && value !== null && Symbol.iterator in value
  if (!isIterable) return at.expected('a trace, or an iterable of its entries', value)
  return Array.from(value as Iterable<unknown>, (entry, index) => checkEntry(entry, at.item(index)))
}

const timeMicros: Check<number> = (value, at) =>
  typeof value === 'number' && value >= 0 && value <= Number.MAX_SAFE_INTEGER
    ? value
    : at.expected('a time in microseconds', value)

const checkEntry = object<TraceEntry>({
  page: integer({ max: 2 ** 32 - 1 }),
  write: boolean,
  filledWith: oneOf(fills),
  timeMicros,
})
