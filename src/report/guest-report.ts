import type { PrefaultReport } from '#native'
import type { Guest } from '../guest/guest.js'
import { guestTable, measured } from '../metrics/table.js'
import type { PageRange } from '../page-range.js'
import type { Memory, RunFacts } from './facts.js'
import { reportPage } from './html.js'
import { mostCells } from './map.js'
import { pictureOf } from './picture.js'

/** What a report is to tell besides what the guest itself tells. */
export interface ReportOptions {
  /** What it is called: `Guest 3`. */
  readonly title?: string | undefined
  /** The snapshot's path. */
  readonly snapshot?: string | undefined
}

/**
 * Watches a guest for a report about its run: make it when the guest comes, and ask for the page
 * once it has ended.
 */
export class GuestReport {
  readonly #guest: Guest
  readonly #options: ReportOptions
  #memory: Memory | undefined
  #prefetched: { ranges: readonly PageRange[]; report?: PrefaultReport } | undefined

  constructor(guest: Guest, reportOptions: ReportOptions = {}) {
    this.#guest = guest
    this.#options = reportOptions
    guest.keepLastPicture(mostCells)
  }

  /** Pages are being prefetched: the report tells what came of it. */
  prefetched(ranges: readonly PageRange[], report?: PrefaultReport): void {
    this.#prefetched = { ranges, ...(report !== undefined && { report }) }
  }

  /** Has the report show the memory as it is now, and not as it is at the end. */
  async takePicture(): Promise<void> {
    const [stats, picture] = await Promise.all([
      this.#guest.stats(),
      this.#guest.picture(mostCells),
    ])
    const { pages: counts, uptimeMs: afterMs } = stats
    this.#memory = { picture: pictureOf(picture), counts, afterMs }
  }

  /** The report as one HTML file, when the guest has ended; waits for that. */
  async html(): Promise<string> {
    return reportPage(await this.facts())
  }

  /** @internal */
  async facts(): Promise<RunFacts> {
    const guest = this.#guest
    const { reason, error, stats } = await guest.ended
    const { pid, recovered, pageSize, regions, tracking } = guest
    const [latencies] = measured(guestTable, guest.figures())
    const picture = await guest.picture(mostCells).catch(() => undefined)
    const { title = `Guest of process ${pid ?? 'unseen'}`, snapshot } = this.#options
    return {
      title,
      snapshot,
      pageSize,
      pages: Math.max(...regions.map(({ firstPage, pageCount }) => firstPage + pageCount)),
      recovered,
      end: { reason, message: error?.message },
      stats,
      latencies,
      memory: this.#memory ?? (picture && { picture: pictureOf(picture), counts: stats.pages }),
      writesAreTracked: tracking !== 'off',
      // Without its snapshot a trace cannot be told apart: the rest is told all the same.
      touches: await guest.trace().catch(() => undefined),
      prefetched: this.#prefetched,
      touchesArePrefetched: true,
    }
  }
}
