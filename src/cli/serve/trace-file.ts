import { type Guest, type Trace } from '../../index.js'
import { checkSaveTo } from '../trace/check-save.js'

/**
 * The file a run's trace is saved to: the union over its guests in the order they ended, and of
 * what was prefetched, since a prefetched page is no first touch any more. Replaces what an
 * earlier run has left there.
 */
export class TraceFile {
  readonly path: string
  #trace: Trace | undefined
  #last: Promise<unknown> = Promise.resolve()

  private constructor(path: string, prefetched: Trace | undefined) {
    this.path = path
    this.#trace = prefetched
  }

  /** Finds out now, and not at the end of the first guest, that there is no way to save. */
  static async open(path: string, prefetched: Trace | undefined) {
    await checkSaveTo(path)
    return new TraceFile(path, prefetched)
  }

  /**
   * Adds the trace of a guest that has ended and saves; resolves with how many pages the file
   * has. A guest that touched nothing changes nothing.
   */
  add(guest: Guest): Promise<number | undefined> {
    const added = this.#last.then(() => this.#add(guest))
    this.#last = added.catch(() => {})
    return added
  }

  async #add(guest: Guest): Promise<number | undefined> {
    const own = await guest.trace()
    if (own.length === 0) return undefined
    const all = this.#trace === undefined ? own : this.#trace.merge('union', [own])
    await all.save(this.path)
    this.#trace = all
    return all.summary.pages
  }
}
