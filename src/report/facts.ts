import type { EndReason, PageCounts, PrefaultReport, Stats } from '#native'
import type { Measured } from '../metrics/table.js'
import type { PageRange } from '../page-range.js'
import type { Entries } from './entries.js'
import type { Picture } from './picture.js'

/** Statistics as they were taken, or as a line of JSON has them. */
export type PlainStats = Omit<Stats, 'copiedBytes'> & { readonly copiedBytes: number | bigint }

/** The memory at one moment. */
export interface Memory {
  readonly picture: Picture
  /** Pages by state. */
  readonly counts: PageCounts
  /** Time from the handoff, in milliseconds; absent at the end. */
  readonly afterMs?: number
}

/** What was prefetched, and what came of it. */
export interface Prefetched {
  readonly ranges: readonly PageRange[]
  /** Absent where only the trace is known. */
  readonly report?: PrefaultReport | undefined
}

/** What is known of a guest's run. Whatever is absent is left out of the report. */
export interface RunFacts {
  /** Which run it was, for people. */
  readonly title: string
  /** The snapshot's path. */
  readonly snapshot: string | undefined
  readonly pageSize: number
  /** How many pages the guest has. */
  readonly pages: number
  /** Whether another process served it first: then latencies are of the time since. */
  readonly recovered?: boolean | undefined
  readonly end?: { readonly reason: EndReason; readonly message?: string | undefined } | undefined
  readonly stats?: PlainStats | undefined
  /** `uffd_fault_seconds`. */
  readonly latencies?: Measured | undefined
  readonly memory?: Memory | undefined
  /** Whether it is known which pages were written after they were read. */
  readonly writesAreTracked: boolean
  /** First touches, of pages that were missing. */
  readonly touches?: Entries | undefined
  readonly prefetched?: Prefetched | undefined
  /**
   * Whether the touches are those of the run that was prefetched. Else they are of another run
   * that was not, and tell exactly which pages the prefetch would have been for.
   */
  readonly touchesArePrefetched: boolean
}
