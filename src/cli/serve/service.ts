import type {
  Guest,
  GuestEnd,
  GuestReport,
  PrefaultReport,
  Server,
  Stats,
  Trace,
} from '../../index.js'
import { faultRate } from '../output/figures.js'
import { bytes, micros, several, whole } from '../../numbers.js'
import type { Output } from '../output/output.js'
import { plainStats } from '../output/plain-stats.js'
import { Background } from './background.js'
import type { ReportFiles } from './report-files.js'
import type { Tally } from './tally.js'
import type { TraceFile } from './trace-file.js'

/** What a service works with. */
export interface Surroundings {
  readonly output: Output
  readonly tally: Tally
  readonly traceFile: TraceFile | undefined
  readonly reportFiles: ReportFiles | undefined
  /** The trace that guests are prefetched with. */
  readonly prefetch: Trace | undefined
  readonly withStats: boolean
  /** Guests are released in the background. */
  readonly release: boolean
}

/** Prefetches into a guest of this number, and tells what came of it, if anything did. */
export type Prefetch = (guest: Guest, number: number) => Promise<PrefaultReport | undefined>

/** Sees each guest of a server through to its end. */
export class Service {
  readonly #with: Surroundings
  readonly #guests = new Set<Promise<void>>()
  #count = 0

  constructor(surroundings: Surroundings) {
    this.#with = surroundings
  }

  /** Resolves when the server is closed and all its guests have ended. */
  async serve(server: Server, once: boolean, prefetch?: Prefetch): Promise<void> {
    try {
      for await (const guest of server) {
        const served = this.see(guest, prefetch)
        this.#guests.add(served)
        void served.finally(() => this.#guests.delete(served))
        if (once) void server.close()
      }
    } catch (error) {
      // The server has told of its broken socket; the guests it has are served on.
      this.#with.tally.broken = true
      this.#with.output.tell('error', { event: 'broken' }, (error as Error).message)
    }
    await Promise.all(this.#guests)
  }

  /** Sees one guest through to its end. */
  async see(guest: Guest, prefetch?: Prefetch): Promise<void> {
    const number = ++this.#count
    const { output, tally, withStats, reportFiles } = this.#with
    const report = reportFiles?.watch(guest, number)
    const { id, pid, peer, pageSize, tracking, regions } = guest
    const memoryBytes = Number(regions.reduce((sum, { size }) => sum + size, 0n))
    const tracked = tracking === 'off' ? '' : `, dirty pages tracked (${tracking})`
    output.tell(
      'info',
      { event: 'guest', guest: number, id, pid, peer, memoryBytes, pageSize, tracking },
      `Guest ${number} (pid ${pid ?? 'unseen'}): ${bytes(memoryBytes)} in pages of ` +
        `${bytes(pageSize)}${tracked}`,
    )
    guest.on('notice', ({ kind, page, message, unseen }) => {
      const facts = { event: 'notice', guest: number, kind, page, unseen }
      output.tell('warn', facts, `Guest ${number}: ${message}`)
    })
    const background = new Background(guest)
    if (withStats) this.#showFigures(guest, number, background)
    if (this.#with.release) this.#release(guest, number)
    const prefetched = prefetch?.(guest, number)
    if (prefetched !== undefined) background.prefetching(this.#with.prefetch!.pages, prefetched)

    const end = await guest.ended
    const fetched = await prefetched
    output.gone(number)
    tally.add(end.reason, end.stats.faults)
    this.#tellEnd(number, end, pageSize)
    await this.#saveTrace(guest, number)
    if (report !== undefined) await this.#saveReport(report, number, fetched)
  }

  #release(guest: Guest, number: number): void {
    guest.on('releasing', (progress) => {
      const { done, pages } = progress
      const facts = { event: 'releasing', guest: number, ...progress }
      this.#with.output.tell(
        'debug',
        facts,
        `Guest ${number}: ${whole(done)} of ${several(pages, 'page')} need no handler any more`,
      )
    })
    guest.release().catch(({ code, message }: { code: string; message: string }) => {
      if (code === 'ERR_UFFD_GUEST_ENDED') return
      const facts = { event: 'not-released', guest: number, code }
      this.#with.output.tell('warn', facts, `Guest ${number} is not released: ${message}`)
    })
  }

  #showFigures(guest: Guest, number: number, background: Background): void {
    let before: Stats | undefined
    guest.on('stats', (stats) => {
      const faultsPerSecond = faultRate(before, stats)
      before = stats
      const { pid, pageSize } = guest
      const { progress } = background
      this.#with.output.figures({ guest: number, pid, faultsPerSecond, pageSize, stats, progress })
    })
  }

  #tellEnd(guest: number, { reason, error, stats }: GuestEnd, pageSize: number): void {
    const { latency, pages } = stats
    const how = {
      'guest-exited': 'exited',
      stopped: 'was stopped; if it still runs, it waits at the next page it misses',
      'handed-over': 'was left in the state directory to whoever serves it next',
      released: 'has all it needs, and runs without a handler',
      failed: `failed: ${error?.message}`,
    }[reason]
    const installed = bytes((stats.sourcePages + stats.zeroPages) * pageSize)
    const code = error?.code
    this.#with.output.tell(
      reason === 'failed' ? 'error' : 'info',
      { event: 'end', guest, reason, code, stats: plainStats(stats) },
      `Guest ${guest} ${how}. ${micros(stats.uptimeMs * 1000)}, ${several(stats.faults, 'fault')} ` +
        `(p50 ${micros(latency.p50)}, p99 ${micros(latency.p99)}), ${installed} installed, ` +
        `${several(pages.removed, 'page')} removed`,
    )
  }

  async #saveReport(report: GuestReport, number: number, fetched?: PrefaultReport): Promise<void> {
    const { output, tally, reportFiles, prefetch } = this.#with
    if (fetched !== undefined) report.prefetched(prefetch!.pages, fetched)
    try {
      const file = await reportFiles!.save(report, number)
      output.tell('info', { event: 'report', guest: number, file }, `Saved a report at ${file}`)
    } catch (error) {
      const { code, message } = error as { code?: string; message: string }
      tally.unsavedReports++
      output.tell('error', { event: 'report', guest: number, code }, message)
    }
  }

  async #saveTrace(guest: Guest, number: number): Promise<void> {
    const { output, tally, traceFile } = this.#with
    if (traceFile === undefined) return
    const { path } = traceFile
    try {
      const pages = await traceFile.add(guest)
      if (pages === undefined) return
      const facts = { event: 'trace', guest: number, file: path, pages }
      output.tell('info', facts, `Saved the trace to ${path}: ${several(pages, 'page')}`)
    } catch (error) {
      const { code, message } = error as { code?: string; message: string }
      tally.unsavedTraces++
      output.tell('error', { event: 'trace', guest: number, file: path, code }, message)
    }
  }
}
