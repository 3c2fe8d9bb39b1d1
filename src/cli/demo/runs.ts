import { Trace, type PageCounts, type PrefaultReport, type Stats } from '../../index.js'
import type { Checks } from './checks.js'
import type { GuestProcess } from '../../testing/guest-process.js'
import { pages, type Stage } from './stage.js'

/** What the guest needs to start: half of its memory, in runs at random places. */
const start = { order: 'boot', seed: 1, page: 0, count: pages / 2 }

/** What it writes, and who says so. */
export const written = { page: 1024, count: 1024 }
export const stamp = 7

/** What it gives back: pages it wrote, pages it read, and pages it never touched. */
export const givenBack = { page: 1536, count: 8192 }

/** The guest touching what it needs to start. */
export interface Start {
  readonly touches: number
  readonly millis: number
  readonly stats: Stats
}

/** What came of the first run. */
export interface FirstRun {
  readonly pid: number
  readonly isUserModeOnly: boolean
  readonly start: Start
  /** How many pages were given back. */
  readonly givenBack: number
  /** How many of them held anything but zeros afterwards. */
  readonly stale: number
  /** The pages at the end, by state. */
  readonly states: PageCounts
  /** How many pages the saved trace has. */
  readonly traced: number
}

/** What came of the second run. */
export interface SecondRun {
  readonly prefault: PrefaultReport
  readonly prefaultMillis: number
  readonly start: Start
}

/**
 * A guest from nothing, served one page a fault: so its trace has every page it needs, and not
 * only those that were not filled as somebody's neighbour.
 */
export async function firstRun(
  stage: Stage,
  checks: Checks,
  { trace, report }: { readonly trace: string; readonly report: string },
): Promise<FirstRun> {
  return await stage.withGuest(
    { faultAround: false },
    async (process, guest, page) => {
      const touches = await startUp(process)
      const stats = await guest.stats()
      const saved = await guest.trace()
      await saved.save(trace)

      await process.ask('write', { ...written, stamp })
      await checks.check(process, written, { stamp })
      await checks.check(process, { page: 0, count: written.page }, 'source')
      await process.ask('madvise', givenBack)
      const { counts: states } = await guest.pageStates()
      await page.takePicture()
      const stale = await checks.check(process, givenBack, 'zeros')
      await checks.check(process, { ...written, count: givenBack.page - written.page }, { stamp })
      const rest = givenBack.page + givenBack.count
      await checks.check(process, { page: rest, count: pages - rest }, 'source')
      return {
        pid: process.pid,
        isUserModeOnly: process.isUserModeOnly,
        start: { ...touches, stats },
        givenBack: givenBack.count,
        stale,
        states,
        traced: saved.summary.pages,
      }
    },
    report,
  )
}

/** Another guest of the same snapshot, whose pages are there before it asks. */
export async function secondRun(stage: Stage, checks: Checks, trace: string): Promise<SecondRun> {
  return await stage.withGuest({}, async (process, guest) => {
    const before = performance.now()
    const prefault = await guest.prefault(await Trace.load(trace))
    const prefaultMillis = performance.now() - before
    const touches = await startUp(process)
    const stats = await guest.stats()
    await checks.check(process, { page: 0, count: pages }, 'source')
    return { prefault, prefaultMillis, start: { ...touches, stats } }
  })
}

/** Touches what the guest needs to start. */
export async function startUp(process: GuestProcess): Promise<Omit<Start, 'stats'>> {
  const { touches, nanos } = await process.ask<{ touches: number; nanos: number }>('bench', start)
  return { touches, millis: nanos / 1e6 }
}
