import native, { type PageCounts, type PageExport, type Region } from '#native'
import { type PageRange } from '../page-range.js'

/**
 * A page's state. `unfaulted`: never installed, the guest has not needed it yet. `faulted`:
 * installed. `removed`: given back by the guest, reads as zeros. `poisoned`: its source failed,
 * accesses raise SIGBUS.
 */
export type PageState = (typeof pageStates)[number]

/** The states in the order of their numbers in {@link RegionStates.states}. */
export const pageStates = ['unfaulted', 'faulted', 'removed', 'poisoned'] as const

/** The states of a region's pages at one moment. */
export interface RegionStates extends Region {
  /** One byte a page, in page order: an index into {@link pageStates}. */
  readonly states: Uint8Array
}

/** The states of all pages of a guest at one moment. */
export class PageStates {
  /** Region by region, in the order of snapshot offsets. */
  readonly regions: readonly RegionStates[]

  /** How many pages there are in each state. */
  readonly counts: PageCounts

  constructor(regions: readonly Region[], { states, counts }: PageExport) {
    this.regions = regions.map((region, index) => ({ ...region, states: states[index]! }))
    this.counts = counts
  }

  /** The state of one page, or `undefined` if the guest has no such page. */
  stateOf(page: number): PageState | undefined {
    for (const { firstPage, states } of this.regions) {
      const state = states[page - firstPage]
      if (state !== undefined) return pageStates[state]
    }
    return undefined
  }
}

/** What a diff snapshot of the guest has to hold. */
export class DirtyPages {
  /**
   * Pages that differ from the snapshot and are not empty, as a Roaring bitmap in the portable
   * format, which every Roaring library reads.
   */
  readonly dirty: Buffer

  /** How many of them there are. */
  readonly dirtyCount: number

  /** Pages that read as zeros, in the same format. None of them is in `dirty`. */
  readonly empty: Buffer

  /** How many of them there are. */
  readonly emptyCount: number

  /**
   * Whether `dirty` holds only pages that were written. Without dirty tracking it is `false`,
   * and `dirty` holds every page that was installed and could have been written since.
   */
  readonly exact: boolean

  constructor({
    dirty,
    dirtyCount,
    empty,
    emptyCount,
    exact,
  }: Omit<PageExport, 'states' | 'counts'>) {
    this.dirty = dirty
    this.dirtyCount = dirtyCount
    this.empty = empty
    this.emptyCount = emptyCount
    this.exact = exact
  }

  /** The pages of `dirty` as ranges, in rising order; neighbours are joined. */
  dirtyRanges(): IterableIterator<PageRange> {
    return rangesOf(this.dirty)
  }

  /** The same for `empty`. */
  emptyRanges(): IterableIterator<PageRange> {
    return rangesOf(this.empty)
  }
}

function* rangesOf(roaring: Buffer): IterableIterator<PageRange> {
  const pairs = native.pageRanges(roaring)
  for (let at = 0; at < pairs.length; at += 2) yield { start: pairs[at]!, end: pairs[at + 1]! }
}
