import type { Stats } from '../../index.js'

/** How far something has come that is done in the background. */
export interface Progress {
  readonly of: 'prefetch' | 'release'
  /** From 0 to 1. */
  readonly share: number
}

/** How one guest is doing. */
export interface GuestFigures {
  /** Its number: 1 for the first that came. */
  readonly guest: number
  readonly pid: number | undefined
  readonly faultsPerSecond: number
  readonly pageSize: number
  readonly stats: Stats
  /** What is being done in the background for it, if anything is. */
  readonly progress?: Progress | undefined
}

/** Faults per second between two looks at a guest; from its handoff on for the first. */
export function faultRate(before: Stats | undefined, now: Stats): number {
  const millis = now.uptimeMs - (before?.uptimeMs ?? 0)
  const faults = now.faults - (before?.faults ?? 0)
  return millis > 0 ? (faults * 1000) / millis : 0
}
