import { EventEmitter, once } from 'node:events'
import { existsSync } from 'node:fs'
import { type Guest, listen, type PrefaultReport, type Server, Trace } from 'uffd-rs'

/** A VMM with a microVM that is loaded from the snapshot and paused. */
export interface Vm {
  readonly pid: number
  resume(): Promise<void>
  /** Ends the VMM; resolves when its process is gone. */
  kill(): Promise<void>
}

/** Starts a VMM that takes its memory from this socket; resolves when the microVM is loaded. */
export type StartVm = (clone: number, uffdSocket: string) => Promise<Vm>

export interface CloneOptions {
  /** The snapshot's memory file. */
  readonly snapshot: string
  /** Where the VMMs get their memory from. */
  readonly socket: string
  /** What earlier clones needed first; the file need not exist yet. */
  readonly trace: string
  readonly startVm: StartVm
}

/** A microVM that is running, and the guest that serves its memory. */
export interface Clone {
  readonly vm: Vm
  readonly guest: Guest
  /** What came of the prefetch, if there was a trace. */
  readonly prefetched: PrefaultReport | undefined
}

/** MicroVMs of one snapshot: one server, one socket, one trace for all of them. */
export class Clones {
  readonly #options: CloneOptions
  readonly #server: Server
  readonly #trace: Trace | undefined
  readonly #running: Clone[] = []
  readonly #vms = new Set<Vm>()
  /** Guests that came, by the process they came from. */
  readonly #guests = new Map<number, Guest>()
  readonly #arrivals = new EventEmitter()

  private constructor(options: CloneOptions, server: Server, trace: Trace | undefined) {
    this.#options = options
    this.#server = server
    this.#trace = trace
    void this.#receive()
  }

  static async open(options: CloneOptions): Promise<Clones> {
    const { snapshot, socket, trace } = options
    // A trace of another snapshot is refused here, before any VMM is started.
    const loaded = existsSync(trace) ? await Trace.load(trace, { snapshot }) : undefined
    const server = await listen({ snapshot, socket })
    return new Clones(options, server, loaded)
  }

  /** Resumes so many clones at once; all of them or, if one fails, none. */
  async resume(count: number): Promise<Clone[]> {
    const resumed = await Promise.allSettled(
      Array.from({ length: count }, (_, index) => this.#resumeOne(index)),
    )
    const clones: Clone[] = []
    for (const result of resumed) {
      if (result.status === 'rejected') {
        await this.#killAll()
        throw result.reason
      }
      clones.push(result.value)
    }
    this.#running.push(...clones)
    return clones
  }

  /** Saves what the clones so far needed first, for the clones to come. */
  async saveTrace(): Promise<number> {
    const { trace } = this.#options
    const own = await Promise.all(this.#running.map(({ guest }) => guest.trace()))
    // What was prefetched was touched as well, and is no first touch any more.
    const [first, ...others] = this.#trace === undefined ? own : [this.#trace, ...own]
    if (first === undefined) return 0
    const all = first.merge('union', others)
    await all.save(trace)
    return all.summary.pages
  }

  /** Ends every clone, then the server. */
  async close(): Promise<void> {
    await this.#killAll()
    await this.#server.stop()
  }

  async #resumeOne(index: number): Promise<Clone> {
    const vm = await this.#options.startVm(index, this.#server.socket)
    this.#vms.add(vm)
    const guest = await this.#guestOf(vm)
    // The guest may run meanwhile too: its faults go first. Here it starts with warm memory.
    const prefetched = this.#trace && (await guest.prefault(this.#trace))
    await vm.resume()
    return { vm, guest, prefetched }
  }

  /** Clones come in any order: the process tells which is which. */
  async #guestOf({ pid }: Vm): Promise<Guest> {
    const here = this.#guests.get(pid)
    if (here !== undefined) return here
    const signal = AbortSignal.timeout(10_000)
    const [guest] = (await once(this.#arrivals, `${pid}`, { signal })) as [Guest]
    return guest
  }

  async #receive(): Promise<void> {
    for await (const guest of this.#server) {
      if (guest.pid === undefined) continue
      this.#guests.set(guest.pid, guest)
      this.#arrivals.emit(`${guest.pid}`, guest)
    }
  }

  async #killAll(): Promise<void> {
    await Promise.all([...this.#vms].map((vm) => vm.kill()))
    this.#vms.clear()
  }
}
