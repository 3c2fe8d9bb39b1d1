import type { PageRange } from '../page-range.js'
import type { Entries } from './entries.js'
import type { RunFacts } from './facts.js'

/** What the guest's first touches came to. Pages of memory that was given back are none of these. */
export interface Touches {
  /** Pages of the snapshot, its holes included, that a thread waited for. */
  readonly needed: number
  /** Pages that were touched again after they had been given back. */
  readonly regained: number
}

/** What came of a prefetch, in pages. */
export interface Account {
  /** Pages it was asked for. */
  readonly asked: number
  /** Asked for, and a thread waited for them all the same. */
  readonly late: number
  /** Not asked for, and a thread waited for them. */
  readonly missed: number
  /** Asked for, and no thread waited for them. */
  readonly ready: number
  /** Of those, what is known to have been for nothing. */
  readonly forNothing: number
  /** Whether more may have been for nothing: a page that is there raises no fault. */
  readonly mayBeMore: boolean
}

export function touchesOf(touches: Entries): Touches {
  let [needed, regained] = [0, 0]
  for (const { filledWith } of touches) {
    if (filledWith === 'zeros') regained++
    else if (filledWith !== 'present') needed++
  }
  return { needed, regained }
}

/** What came of the prefetch of a run, as far as that can be known. */
export function accountOf(facts: RunFacts): Account | undefined {
  const { prefetched, touches, touchesArePrefetched } = facts
  if (prefetched === undefined || touches === undefined) return undefined
  const { ranges, report } = prefetched
  const asked = ranges.reduce((sum, { start, end }) => sum + end - start, 0)
  const isAsked = lookUp(ranges)
  let [inside, missed] = [0, 0]
  for (const { page, filledWith } of touches) {
    if (filledWith === 'zeros' || filledWith === 'present') continue
    if (isAsked(page)) inside++
    else missed++
  }
  if (!touchesArePrefetched) {
    const forNothing = asked - inside
    return { asked, late: 0, missed, ready: asked, forNothing, mayBeMore: false }
  }
  const given = report?.removed ?? 0
  const ready = Math.max(0, asked - inside - (report?.failed ?? 0) - (report?.skipped ?? 0))
  return { asked, late: inside, missed, ready, forNothing: given, mayBeMore: true }
}

/** Whether a page is in any of the ranges. */
function lookUp(ranges: readonly PageRange[]): (page: number) => boolean {
  const sorted = ranges.toSorted((one, other) => one.start - other.start)
  return (page) => {
    let [low, high] = [0, sorted.length]
    while (low < high) {
      const middle = (low + high) >> 1
      if (sorted[middle]!.start <= page) low = middle + 1
      else high = middle
    }
    return low > 0 && page < sorted[low - 1]!.end
  }
}
