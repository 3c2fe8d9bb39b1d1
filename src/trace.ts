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

/**
 * First touches in order, each page once. Compact: 16 bytes an entry, decoded when looked at.
 *
 * A trace recorded from one guest prefaults the next: `guest.prefault(trace)`.
 */
export class Trace implements Iterable<TraceEntry> {
  /** Two words an entry, as they can be stored: `Trace.of` reads them. */
  readonly words: BigUint64Array

  private constructor(words: BigUint64Array) {
    this.words = words
  }

  /** The trace of these words, or an error if they come in no pairs. */
  static of(words: BigUint64Array): Trace {
    if (!(words instanceof BigUint64Array) || words.length % 2 !== 0) {
      throw new TypeError('Expected a BigUint64Array with two words an entry')
    }
    return new Trace(words)
  }

  /** Several traces as one, such as all batches of a guest. */
  static concat(traces: readonly Trace[]): Trace {
    const words = new BigUint64Array(traces.reduce((sum, { words: { length } }) => sum + length, 0))
    let at = 0
    for (const trace of traces) {
      words.set(trace.words, at)
      at += trace.words.length
    }
    return new Trace(words)
  }

  /** How many entries there are. */
  get length(): number {
    return this.words.length / 2
  }

  /** The entry of this number, from 0. */
  at(index: number): TraceEntry | undefined {
    const bits = this.words[2 * index]
    const time = this.words[2 * index + 1]
    if (bits === undefined || time === undefined) return undefined
    return {
      page: Number(bits & pageMask),
      write: (bits & writeBit) !== 0n,
      filledWith: fills[Number((bits >> fillShift) & 3n)]!,
      timeMicros: Number(time) / 1e3,
    }
  }

  *[Symbol.iterator](): IterableIterator<TraceEntry> {
    for (let index = 0; index < this.length; index++) yield this.at(index)!
  }
}
