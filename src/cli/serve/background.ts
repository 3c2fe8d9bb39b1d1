import type { Guest, PageRange } from '../../index.js'
import { guestTable, measured } from '../../metrics/table.js'
import type { Progress } from '../output/figures.js'

/** Follows what is done in the background for a guest: its prefetch, then its release. */
export class Background {
  readonly #guest: Guest
  #toPrefetch = 0
  #releasing: number | undefined

  constructor(guest: Guest) {
    this.#guest = guest
    guest.on('releasing', ({ done, pages }) => {
      this.#releasing = pages === 0 ? 1 : done / pages
    })
  }

  /** Its prefetch has begun, or goes on, until `over` is settled. */
  prefetching(ranges: readonly PageRange[], over: Promise<unknown>): void {
    this.#toPrefetch = ranges.reduce((sum, { start, end }) => sum + end - start, 0)
    const forget = () => (this.#toPrefetch = 0)
    over.then(forget, forget)
  }

  get progress(): Progress | undefined {
    if (this.#toPrefetch > 0) {
      const done = this.#toPrefetch - pendingPages(this.#guest)
      return { of: 'prefetch', share: Math.max(0, done / this.#toPrefetch) }
    }
    const share = this.#releasing
    return share === undefined ? undefined : { of: 'release', share }
  }
}

function pendingPages(guest: Guest): number {
  const all = measured(guestTable, guest.figures()).flatMap(({ samples }) => samples)
  return all.find(({ field }) => field === 'prefaultPendingPages')?.value ?? 0
}
