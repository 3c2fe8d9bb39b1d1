import { hasFeature, requireFeature } from './features.js'
import type { FirecrackerVersion } from './version.js'

/** How a guest tells the host about pages it does not need. */
export interface FreePageChoice {
  /**
   * The guest reports its free pages by itself and their memory goes back to the
   * host. Can only be set before boot, and stays on. True needs Firecracker 1.14.0.
   * @default true from Firecracker 1.14.0, false before
   */
  readonly freePageReporting?: boolean | undefined

  /**
   * The guest hints at its free pages when asked to (`startHinting`). A developer
   * preview of Firecracker. Can only be set before boot. True needs Firecracker 1.14.0.
   * @default false
   */
  readonly freePageHinting?: boolean | undefined
}

/** The choice a version of Firecracker ends up with. */
export interface ResolvedFreePages {
  /** Whether the guest reports its free pages. */
  readonly freePageReporting: boolean
  /** Whether it can be asked for them. */
  readonly freePageHinting: boolean
}

/** Refuses what this version does not have, with an error naming both versions. */
export function requireFreePages(version: FirecrackerVersion, choice: FreePageChoice): void {
  for (const name of ['freePageReporting', 'freePageHinting'] as const) {
    if (choice[name] === true) {
      requireFeature(version, name, `set ${name} to false or leave it out`)
    }
  }
}

/** Fills in what was left out, and refuses what this version does not have. */
export function resolveFreePages(
  version: FirecrackerVersion,
  choice: FreePageChoice,
): ResolvedFreePages {
  requireFreePages(version, choice)
  return {
    freePageReporting: choice.freePageReporting ?? hasFeature(version, 'freePageReporting'),
    freePageHinting: choice.freePageHinting ?? false,
  }
}
