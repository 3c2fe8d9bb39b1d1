import { join } from 'node:path'
import native from '#native'
import { type Guest, GuestReport, listen, type ListenOptions, saveReport } from '../../index.js'
import { GuestProcess } from '../../testing/guest-process.js'
import { ServerProcess } from './server-process.js'

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
  readonly #stateDir: string
  readonly #signal: AbortSignal

  /** Makes a snapshot in this directory; guests are kept in `stateDir`. */
  constructor(directory: string, stateDir: string, signal: AbortSignal) {
    this.snapshot = join(directory, 'snapshot.mem')
    this.#socket = join(directory, 'uffd.sock')
    this.#stateDir = stateDir
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
    try {
      return await this.#withProcess(async (process) => {
        const guest = await server.accept({ timeoutMs: patienceMs, signal })
        const report = new GuestReport(guest, { title: 'The first run of the demo' })
        const result = await work(process, guest, report)
        await process[Symbol.asyncDispose]()
        if (reportAt !== undefined) await saveReport(reportAt, await report.html())
        return result
      })
    } finally {
      await server.stop()
    }
  }

  /** The same by a server in a process of its own, which keeps the guest in a state directory. */
  async withServerProcess<T>(
    work: (server: ServerProcess, process: GuestProcess) => Promise<T>,
  ): Promise<T> {
    const files = ['--socket', this.#socket, '--snapshot', this.snapshot]
    const server = await ServerProcess.start(...files, '--state-dir', this.#stateDir)
    try {
      return await this.#withProcess(async (process) => await work(server, process))
    } finally {
      await server.kill()
    }
  }

  /** Takes over the guest that was left in the state directory, and serves it in this process. */
  async withThoseLeft<T>(work: (guest: Guest) => Promise<T>): Promise<T> {
    const [socket, stateDir, signal] = [this.#socket, this.#stateDir, this.#signal]
    const server = await listen({ socket, snapshot: this.snapshot, stateDir, signal })
    try {
      const [guest] = server.recovered
      if (guest === undefined) throw server.notRecovered[0]!.error
      return await work(guest)
    } finally {
      await server.stop()
    }
  }

  async #withProcess<T>(work: (process: GuestProcess) => Promise<T>): Promise<T> {
    const [socket, signal] = [this.#socket, this.#signal]
    let process: GuestProcess | undefined
    // A guest whose pages are served no more would wait for ever.
    const endProcess = async () => await process?.[Symbol.asyncDispose]()
    const onAbort = () => void endProcess()
    signal.addEventListener('abort', onAbort, { once: true })
    try {
      process = await GuestProcess.start({ socket, pages, zeroPerMille })
      return await work(process)
    } finally {
      signal.removeEventListener('abort', onAbort)
      await endProcess()
    }
  }
}
