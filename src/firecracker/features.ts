import { FirecrackerUnsupportedError } from './errors.js'
import { argument, oneOf } from '../validate.js'
import { FirecrackerVersion } from './version.js'

/** The first version of Firecracker that has each feature. The only such table. */
export const firecrackerFeatures = {
  /** The handoff names the page size (in bytes) as `page_size_kib`. */
  handoffPageSizeKib: '1.7.0',
  /** The handoff names the page size as `page_size` too. */
  handoffPageSize: '1.12.0',
  /** The handoff's socket stays open: its end means that the process died. */
  handoffSocketStaysOpen: '1.12.0',
  /** REMOVE events are negotiated always, not only with a balloon. */
  alwaysRemoveEvents: '1.12.0',
  /** `network_overrides` when a snapshot is loaded. */
  networkOverrides: '1.12.0',
  /** `track_dirty_pages` when a snapshot is loaded; `enable_diff_snapshots` before. */
  trackDirtyPages: '1.13.0',
  /** The balloon's `free_page_reporting`. */
  freePageReporting: '1.14.0',
  /** The balloon's `free_page_hinting` and the requests that drive it. A developer preview. */
  freePageHinting: '1.14.0',
  /** Statistics of reclaim in the guest: `oom_kill`, `alloc_stall`, scan and reclaim counters. */
  balloonReclaimStatistics: '1.14.0',
  /** Hotpluggable memory: more regions in the handoff. */
  memoryHotplug: '1.14.0',
  /** `vsock_override` when a snapshot is loaded. */
  vsockOverride: '1.16.0',
  /** `clock_realtime` when a snapshot is loaded (x86-64 only). */
  clockRealtime: '1.16.0',
  /** `huge_pages` when a snapshot is loaded. */
  hugePagesOnLoad: '1.17.0',
  /** The machine configuration's `huge_pages` can be `Transparent`. */
  transparentHugePages: '1.17.0',
} as const

/** The name of a feature that some versions of Firecracker lack. */
export type FirecrackerFeature = keyof typeof firecrackerFeatures

const checkFeature = oneOf(Object.keys(firecrackerFeatures) as FirecrackerFeature[])

/** Whether this version has the feature. */
export function hasFeature(version: FirecrackerVersion, feature: FirecrackerFeature): boolean {
  if (!(version instanceof FirecrackerVersion)) {
    argument('version').expected('a FirecrackerVersion', version)
  }
  return version.atLeast(firecrackerFeatures[checkFeature(feature, argument('feature'))])
}

/** Throws an error naming both versions where the feature is missing. */
export function requireFeature(
  version: FirecrackerVersion,
  feature: FirecrackerFeature,
  wayOut = `leave ${feature} out`,
): void {
  if (!hasFeature(version, feature)) {
    throw new FirecrackerUnsupportedError(feature, firecrackerFeatures[feature], version, wayOut)
  }
}
