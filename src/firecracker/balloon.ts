import { boolean, integer, optional, options, argument } from '../validate.js'
import { hasFeature } from './features.js'
import { resolveFreePages, type FreePageChoice } from './reporting.js'
import type { FirecrackerVersion } from './version.js'
import { checkFields, field, fromWire, toWire, type Fields } from './wire.js'

const mib = integer({ min: 0, max: 2 ** 32 - 1, unit: 'MiB' })
const seconds = integer({ min: 0, max: 2 ** 16 - 1, unit: 'seconds' })

/** `PUT /balloon`; only before boot. */
export interface BalloonConfig extends FreePageChoice {
  /** The size the balloon aims for, in MiB: memory taken from the guest. */
  readonly amountMib: number
  /** Deflate when the guest runs out of memory. */
  readonly deflateOnOom: boolean
  /**
   * Seconds between two statistics of the guest. 0 turns them off, for good
   * once the guest has booted.
   * @default 0
   */
  readonly statsPollingIntervalS?: number | undefined
}

/** `GET /balloon`. The two choices are absent before Firecracker 1.14.0. */
export type BalloonInfo = BalloonConfig

const fields: Fields<BalloonConfig> = {
  amountMib: field('amount_mib', mib),
  deflateOnOom: field('deflate_on_oom', boolean),
  statsPollingIntervalS: field('stats_polling_interval_s', optional(seconds)),
  freePageHinting: field('free_page_hinting', optional(boolean)),
  freePageReporting: field('free_page_reporting', optional(boolean)),
}

const check = checkFields(fields)

/**
 * The body of `PUT /balloon` for this version: with both choices spelt out where
 * Firecracker knows them, without them where it does not.
 */
export function balloonBody(
  version: FirecrackerVersion,
  config: BalloonConfig,
): Record<string, unknown> {
  const { freePageReporting, freePageHinting, ...rest } = check(config, options())
  const resolved = resolveFreePages(version, { freePageReporting, freePageHinting })
  return toWire(fields, {
    ...rest,
    ...(hasFeature(version, 'freePageReporting') && {
      freePageReporting: resolved.freePageReporting,
    }),
    ...(hasFeature(version, 'freePageHinting') && { freePageHinting: resolved.freePageHinting }),
  })
}

export const readBalloon: (body: unknown) => BalloonInfo = fromWire(fields)

/** The body of `PATCH /balloon`. */
export function balloonTargetBody(amountMib: number): Record<string, unknown> {
  return { amount_mib: mib(amountMib, argument('amountMib')) }
}

/** The body of `PATCH /balloon/statistics`. */
export function statsIntervalBody(intervalS: number): Record<string, unknown> {
  const at = argument('intervalS')
  return { stats_polling_interval_s: seconds(intervalS, at) }
}
