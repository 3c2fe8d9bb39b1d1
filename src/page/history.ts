// What a guest did between two moments, for the last minutes.
import type { GuestNow, Moment } from './feed.js'

/** How many steps are kept: two minutes. */
export const mostSteps = 120

/** Moments that come closer than this, as after a new connection, are one. In milliseconds. */
const closest = 500

/** What happened from one moment to the next. */
export interface Step {
  readonly at: number
  readonly faultsPerSecond: number
  /** In microseconds, by the bounds of buckets; absent without faults. */
  readonly p50?: number
  readonly p99?: number
}

export class History {
  readonly steps: Step[] = []
  #last: { at: number; guest: GuestNow } | undefined

  add({ at, bounds }: Moment, guest: GuestNow): void {
    const last = this.#last
    // A server that came back counts its time, and its guests, from the start.
    if (last !== undefined && at >= last.at && at < last.at + closest) return
    this.#last = { at, guest }
    if (last === undefined || at < last.at) return
    const counts = guest.latencies.map((count, bucket) => count - last.guest.latencies[bucket]!)
    const served = counts.reduce((sum, count) => sum + count, 0)
    const quantile = (share: number) => {
      let seen = 0
      const bucket = counts.findIndex((count) => (seen += count) >= share * served)
      return (bounds[bucket] ?? Infinity) * 1e6
    }
    this.steps.push({
      at,
      faultsPerSecond: (Math.max(0, guest.faults - last.guest.faults) * 1000) / (at - last.at),
      ...(served > 0 && { p50: quantile(0.5), p99: quantile(0.99) }),
    })
    if (this.steps.length > mostSteps) this.steps.splice(0, this.steps.length - mostSteps)
  }

  get now(): Step | undefined {
    return this.steps.at(-1)
  }
}
