import type { Measured } from './table.js'

/** What a distribution of times in buckets tells, in microseconds. */
export interface Spread {
  /** Faults measured. */
  readonly count: number
  readonly mean: number
  /** Half of them took at most this long; a bucket's bound, since no more is known. */
  readonly p50: number
  readonly p99: number
}

/** Adds the buckets of all series of a histogram up. */
export function bucketsOf({ samples, bounds }: Measured): number[] {
  const sums = [...bounds.map(() => 0), 0]
  for (const { counts } of samples) counts?.forEach((count, at) => (sums[at]! += count))
  return sums
}

/** The spread over all series of a histogram. What passes the last bound counts as infinite. */
export function spreadOf(histogram: Measured): Spread {
  const counts = bucketsOf(histogram)
  const count = counts.reduce((sum, one) => sum + one, 0)
  const seconds = histogram.samples.reduce((sum, { value }) => sum + value, 0)
  const at = (quantile: number) => {
    let seen = 0
    const bucket = counts.findIndex((one) => (seen += one) >= quantile * count)
    return count === 0 ? 0 : (histogram.bounds[bucket] ?? Infinity) * 1e6
  }
  return { count, mean: count === 0 ? 0 : (seconds / count) * 1e6, p50: at(0.5), p99: at(0.99) }
}
