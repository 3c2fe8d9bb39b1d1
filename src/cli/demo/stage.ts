import { join } from 'node:path'
import native from '#native'
import { type Guest, GuestReport, listen, type ListenOptions, saveReport } from '../../index.js'
import { GuestProcess } from './guest-process.js'

/** How large the guest is: 64 MiB, enough to measure and gone in a moment. */
export const pages = 16_384
/** Of 1000 runs of 64 KiB, how many are zero: holes of the file. */
const zeroPerMille = 400

/** How long the guest may take to come, on a machine that has much else to do. */
const patienceMs = 60_000

/** A snapshot, and where it is served. */
export class Stage {
  readonly snapshot: string
  readonly #socket: string
  readonly #signal: AbortSignal

  /** Makes a snapshot in this directory. */
  constructor(directory: string, signal: AbortSignal) {
    this.snapshot = join(directory, 'snapshot.mem')
    this.#socket = join(directory, 'uffd.sock')
    this.#signal = signal
    native.writeGuestSnapshot({ path: this.snapshot, pages, zeroPerMille })
  }

  /**
   * Has a guest process hand off its memory, and serves it until the work is done; saves a report
   * about it where that is wanted.
   */
  async withGuest<T>(
    how: Pick<ListenOptions, 'faultAround'>,
    work: (process: GuestProcess, guest: Guest, report: GuestReport) => Promise<T>,
    reportAt?: string,
  ): Promise<T> {
    const [socket, signal] = [this.#socket, this.#signal]
    const server = await listen({ socket, snapshot: this.snapshot, signal, ...how })
    let process: GuestProcess | undefined
    // A guest whose pages are served no more would wait for ever.
    const endProcess = async () => await process?.[Symbol.asyncDispose]()
    const onAbort = () => void endProcess()
    signal.addEventListener('abort', onAbort, { once: true })
    try {
      process = await GuestProcess.start({ socket, pages, zeroPerMille })
      const guest = await server.accept({ timeoutMs: patienceMs, signal })
      const report = new GuestReport(guest, { title: 'The first run of the demo' })
      const result = await work(process, guest, report)
      await endProcess()
      if (reportAt !== undefined) await saveReport(reportAt, await report.html())
      return result
    } finally {
      signal.removeEventListener('abort', onAbort)
      await endProcess()
      await server.stop()
    }
  }
}
