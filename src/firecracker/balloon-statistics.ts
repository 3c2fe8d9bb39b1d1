import { optional, type Check } from '../validate.js'
import { field, fromWire, type Fields } from './wire.js'

/**
 * `GET /balloon/statistics`. All but the first four come from the guest: absent
 * until it has sent them, and no more to be trusted than the guest is.
 */
export interface BalloonStatistics {
  /** Pages (4 KiB) the balloon aims to hold. */
  readonly targetPages: number
  /** Pages (4 KiB) the balloon holds. */
  readonly actualPages: number
  /** MiB the balloon aims to hold. */
  readonly targetMib: number
  /** MiB the balloon holds. */
  readonly actualMib: number
  /** Bytes swapped in. */
  readonly swapIn?: number | undefined
  /** Bytes swapped out. */
  readonly swapOut?: number | undefined
  /** Page faults that needed I/O. */
  readonly majorFaults?: number | undefined
  /** Page faults that needed none. */
  readonly minorFaults?: number | undefined
  /** Bytes not used for anything. */
  readonly freeMemory?: number | undefined
  /** Bytes the guest has. */
  readonly totalMemory?: number | undefined
  /** Bytes a new application could have without swapping, as estimated. */
  readonly availableMemory?: number | undefined
  /** Bytes that can be reclaimed without I/O, mostly cached files. */
  readonly diskCaches?: number | undefined
  /** Huge pages the guest allocated. */
  readonly hugetlbAllocations?: number | undefined
  /** Huge pages the guest could not allocate. */
  readonly hugetlbFailures?: number | undefined
  /** Processes killed for want of memory. From Firecracker 1.14.0, as all that follow. */
  readonly oomKill?: number | undefined
  /** Allocations that had to wait for memory. */
  readonly allocStall?: number | undefined
  /** Memory scanned in the background. */
  readonly asyncScan?: number | undefined
  /** Memory scanned by an allocation itself. */
  readonly directScan?: number | undefined
  /** Memory reclaimed in the background. */
  readonly asyncReclaim?: number | undefined
  /** Memory reclaimed by an allocation itself. */
  readonly directReclaim?: number | undefined
}

/** The guest may send any 64-bit number, so large ones are rounded, not refused. */
const count: Check<number> = (value, at) =>
  typeof value === 'number' && value >= 0 ? value : at.expected('a number of at least 0', value)

const fields: Fields<BalloonStatistics> = {
  targetPages: field('target_pages', count),
  actualPages: field('actual_pages', count),
  targetMib: field('target_mib', count),
  actualMib: field('actual_mib', count),
  swapIn: field('swap_in', optional(count)),
  swapOut: field('swap_out', optional(count)),
  majorFaults: field('major_faults', optional(count)),
  minorFaults: field('minor_faults', optional(count)),
  freeMemory: field('free_memory', optional(count)),
  totalMemory: field('total_memory', optional(count)),
  availableMemory: field('available_memory', optional(count)),
  diskCaches: field('disk_caches', optional(count)),
  hugetlbAllocations: field('hugetlb_allocations', optional(count)),
  hugetlbFailures: field('hugetlb_failures', optional(count)),
  oomKill: field('oom_kill', optional(count)),
  allocStall: field('alloc_stall', optional(count)),
  asyncScan: field('async_scan', optional(count)),
  directScan: field('direct_scan', optional(count)),
  asyncReclaim: field('async_reclaim', optional(count)),
  directReclaim: field('direct_reclaim', optional(count)),
}

export const readBalloonStatistics: (body: unknown) => BalloonStatistics = fromWire(fields)
