import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { createInterface } from 'node:readline'
import program from '#guest-program'
import { UffdError } from '../errors.js'
import { argument, boolean, integer, localSocket, object, optional, options } from '../validate.js'
import { checkMemory, type GuestMemory } from './snapshot.js'

/** A guest process: its memory, and where it is handed off. */
export interface GuestProcessOptions extends GuestMemory {
  /** Where the handler listens. */
  readonly socket: string | URL
  /**
   * Whether it registers its memory for write protection too, so that a handler with
   * `dirtyTracking: 'auto'` tracks what it writes.
   * @default false
   */
  readonly writeProtection?: boolean | undefined
}

/** What a page of a guest process may hold. */
export type ExpectedPages =
  /** What the snapshot has, be it zeros. */
  | 'source'
  /** Zeros, as after pages were given back. */
  | 'zeros'
  /** Nothing: a touch raises SIGBUS. */
  | 'poisoned'
  /** What {@link GuestProcess.write} left there with this stamp. */
  | { readonly stamp: number }

/** What came of touching pages. */
export interface Touched {
  /** How many pages were touched. */
  readonly pages: number
  /** How many of them raised SIGBUS. */
  readonly poisoned: number
}

/** What a guest process says of itself when it has handed off. */
interface Ready {
  readonly pid: number
  readonly user_mode_only: boolean
}

interface Refusal {
  readonly message: string
}

/** A line of the guest program; crates/guest/src/protocol tells what can be in it. */
interface Line {
  readonly ready?: Ready
  readonly reply?: { readonly id: number; readonly ok?: unknown; readonly error?: Refusal }
  readonly failed?: Refusal
}

interface Waiting {
  readonly resolve: (ok: unknown) => void
  readonly reject: (error: Error) => void
}

const checkOptions = {
  socket: localSocket,
  writeProtection: optional(boolean),
}

const page = integer({ unit: 'pages' })
const count = integer({ min: 1, unit: 'pages' })
const checkRange = object<{ page: number; count: number }>({ page, count })
const checkStamp = integer({ min: 1, max: 2 ** 32 - 1 })

/**
 * A process that hands its memory off as Firecracker does, and then touches it as it is told: a guest
 * for tests, without KVM. It has memory and no processor of its own.
 */
export class GuestProcess implements AsyncDisposable {
  readonly #child: ChildProcess
  readonly #waiting = new Map<number, Waiting>()
  readonly #socket: string
  readonly #exited: Promise<number | null>
  #nextId = 1
  #ready: Ready | undefined
  #failure: UffdError | undefined

  private constructor(child: ChildProcess, socket: string) {
    this.#child = child
    this.#socket = socket
    this.#exited = new Promise((resolve) => {
      // Once all that it wrote has been read, be it why it gives up.
      child.once('close', (status) => {
        this.#fail('has exited')
        resolve(status)
      })
      child.once('error', ({ message }) => {
        this.#fail(`cannot be started: ${message}`)
        resolve(null)
      })
    })
  }

  /**
   * Starts a guest process; resolves once it has handed off its memory. Whether a handler serves it is
   * for the first touch to find out.
   *
   * @throws {UffdError} ERR_UFFD_TESTING if it cannot be started, or hand off.
   */
  static async start(guestOptions: GuestProcessOptions): Promise<GuestProcess> {
    return await GuestProcess.startAs(argumentsOf(guestOptions))
  }

  /** @internal The same with arguments of the guest program. */
  static async startAs(args: readonly string[]): Promise<GuestProcess> {
    const child = spawn(process.execPath, [program, ...args], {
      stdio: ['pipe', 'pipe', 'inherit'],
    })
    const guest = new GuestProcess(child, args[args.indexOf('--socket') + 1]!)
    await guest.#handedOff()
    return guest
  }

  /** Its process id. */
  get pid(): number {
    return this.#child.pid!
  }

  /** Whether only faults of user mode are handed off, because the kernel allows this user no more. */
  get isUserModeOnly(): boolean {
    return this.#ready!.user_mode_only
  }

  /** Resolves when the process is gone: with its exit status, or `null` after a signal. */
  get exited(): Promise<number | null> {
    return this.#exited
  }

  /** Reads a word of each of these pages. */
  async touch(first: number, pages = 1): Promise<Touched> {
    return await this.ask('touch', rangeOf(first, pages))
  }

  /** Writes these pages whole, with contents that this stamp tells from others. */
  async write(first: number, pages: number, stamp: number): Promise<Touched> {
    const checked = checkStamp(stamp, argument('stamp'))
    return await this.ask('write', { ...rangeOf(first, pages), stamp: checked })
  }

  /** Gives these pages back, as a balloon or free page reporting does; they read as zeros then. */
  async giveBack(first: number, pages = 1): Promise<void> {
    await this.ask('madvise', rangeOf(first, pages))
  }

  /** Reads these pages whole; resolves with how many hold something else than one of these. */
  async wrongPages(first: number, pages: number, ...expected: ExpectedPages[]): Promise<number> {
    const range = rangeOf(first, pages)
    const { wrong } = await this.ask<{ wrong: number }>('verify', { ...range, expect: expected })
    return wrong
  }

  /** Ends the process in good order; resolves with its exit status. */
  async exit(): Promise<number | null> {
    this.#child.stdin!.end()
    return await this.#exited
  }

  /** Ends the process at once, as a crash does; resolves when it is gone. */
  async kill(): Promise<void> {
    this.#child.kill('SIGKILL')
    await this.#exited
  }

  /** The same as {@link kill}. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.kill()
  }

  /** @internal Asks for something, and waits for the answer. */
  async ask<T>(op: string, details: object): Promise<T> {
    if (this.#failure !== undefined) throw this.#failure
    const id = this.#nextId++
    const answer = new Promise<unknown>((resolve, reject) => {
      this.#waiting.set(id, { resolve, reject })
    })
    this.#child.stdin!.write(`${JSON.stringify({ id, op, ...details })}\n`)
    return (await answer) as T
  }

  async #handedOff(): Promise<void> {
    // That it has gone is told by its exit.
    this.#child.stdin!.on('error', () => {})
    const lines = createInterface({ input: this.#child.stdout! })
    lines.on('line', (text) => this.#take(JSON.parse(text) as Line))
    const first = once(lines, 'line')
    // It may end without a line.
    await Promise.race([first, this.#exited])
    first.catch(() => {})
    if (this.#ready !== undefined) return
    await this.kill()
    throw this.#failure!
  }

  #take({ ready, reply, failed }: Line): void {
    if (ready !== undefined) this.#ready = ready
    if (failed !== undefined) this.#fail(`gives up: ${failed.message}`)
    if (reply !== undefined) this.#answer(reply)
  }

  /** The first reason is the one that counts. */
  #fail(why: string): void {
    const text = `The guest process for ${this.#socket} ${why}`
    this.#failure ??= new UffdError('ERR_UFFD_TESTING', text)
    for (const { reject } of this.#waiting.values()) reject(this.#failure)
    this.#waiting.clear()
  }

  #answer({ id, ok, error }: NonNullable<Line['reply']>): void {
    const waiting = this.#waiting.get(id)
    this.#waiting.delete(id)
    if (error === undefined) return waiting?.resolve(ok)
    const why = `The guest process cannot do that: ${error.message}`
    waiting?.reject(new UffdError('ERR_UFFD_TESTING', why))
  }
}

function rangeOf(first: number, pages: number) {
  return checkRange({ page: first, count: pages }, options())
}

/** The arguments of the guest program for these options. */
export function argumentsOf(given: GuestProcessOptions): string[] {
  const { socket, writeProtection, ...memory } = object<
    { socket: string; writeProtection?: boolean | undefined } & GuestMemory
  >({ ...checkOptions, ...checkMemory })(given, options())
  const { pages, pageSize = 4096, seed = 0, zeroPerMille = 0 } = memory
  const values = {
    socket,
    pages,
    'page-size': pageSize,
    seed,
    'zero-per-mille': zeroPerMille,
    'user-mode-only': 'auto',
    ...(writeProtection && { register: 'wp', features: 'remove,wp' }),
  }
  return Object.entries(values).flatMap(([name, value]) => [`--${name}`, `${value}`])
}
