import { type Guest, GuestReport, saveReport, UffdError } from '../../index.js'
import { checkReportAt } from '../../report/save.js'
import { UsageError } from '../arguments/usage-error.js'
import { whyNotIn } from '../directory.js'

/**
 * Where reports of a run are saved: that of the first guest at the path given, that of another
 * with its number before `.html`.
 */
export class ReportFiles {
  readonly #path: string
  readonly #snapshot: string

  private constructor(path: string, snapshot: string) {
    this.#path = path
    this.#snapshot = snapshot
  }

  /** Finds out now, and not at the end of the first guest, that there is no way to save. */
  static async open(path: string, snapshot: string): Promise<ReportFiles> {
    if (!path.endsWith('.html')) {
      throw new UsageError(`--report must end with .html, not ${JSON.stringify(path)}`)
    }
    const why = await whyNotIn(path)
    if (why !== undefined) {
      throw new UffdError('ERR_UFFD_REPORT', `Cannot save a report at ${path}: ${why}`)
    }
    await checkReportAt(path)
    return new ReportFiles(path, snapshot)
  }

  /** Watches a guest that has just come. */
  watch(guest: Guest, number: number): GuestReport {
    const title = `Guest ${number} (pid ${guest.pid ?? 'unseen'})`
    return new GuestReport(guest, { title, snapshot: this.#snapshot })
  }

  /** Saves the report of a guest that has ended; resolves with its path. */
  async save(report: GuestReport, number: number): Promise<string> {
    const path = number === 1 ? this.#path : this.#path.replace(/\.html$/, `-${number}.html`)
    await saveReport(path, await report.html())
    return path
  }
}
