import type { GuestProcess } from '../../testing/guest-process.js'

/** What a page is to hold: the snapshot's bytes, zeros, or what the guest has written. */
export type Expected = 'source' | 'zeros' | { readonly stamp: number }

/** Pages `page` to `page + count`. */
export interface Range {
  readonly page: number
  readonly count: number
}

/** Compares pages byte by byte, and keeps count over all runs. */
export class Checks {
  /** Pages compared. */
  pages = 0
  /** Pages that held anything else. */
  wrong = 0

  /** Has the guest read a range whole; resolves with how many of its pages were wrong. */
  async check(guest: GuestProcess, range: Range, expected: Expected): Promise<number> {
    const { pages, wrong } = await guest.ask<{ pages: number; wrong: number }>('verify', {
      ...range,
      expect: [expected],
    })
    if (pages !== range.count) throw new Error(`${pages} of ${range.count} pages were compared`)
    this.pages += pages
    this.wrong += wrong
    return wrong
  }
}
