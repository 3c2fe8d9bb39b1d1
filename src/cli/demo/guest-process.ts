import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'

const program = fileURLToPath(new URL('../../guest-program.js', import.meta.url))

/** What the guest program says of itself when it has handed off. */
interface Ready {
  readonly pid: number
  readonly user_mode_only: boolean
}

interface Refusal {
  readonly message: string
}

/** A line of the guest program; crates/guest/src/protocol.rs tells what can be in it. */
interface Line {
  readonly ready?: Ready
  readonly reply?: { readonly id: number; readonly ok?: unknown; readonly error?: Refusal }
  readonly failed?: Refusal
}

interface Waiting {
  readonly resolve: (ok: unknown) => void
  readonly reject: (error: Error) => void
}

/** The memory of a guest, and where it is handed off. */
export interface GuestMemory {
  readonly socket: string
  readonly pages: number
  /** As the snapshot was made. */
  readonly zeroPerMille: number
}

/** A guest process: it hands off like Firecracker, then touches memory as it is told. */
export class GuestProcess implements AsyncDisposable {
  readonly #child: ChildProcess
  readonly #waiting = new Map<number, Waiting>()
  #nextId = 1
  #ready: Ready | undefined

  private constructor(child: ChildProcess) {
    this.#child = child
  }

  /** Starts a guest; resolves once it has handed off. */
  static async start({ socket, pages, zeroPerMille }: GuestMemory): Promise<GuestProcess> {
    const args = ['--socket', socket, '--pages', `${pages}`, '--zero-per-mille', `${zeroPerMille}`]
    const child = spawn(process.execPath, [program, ...args, '--user-mode-only', 'auto'], {
      stdio: ['pipe', 'pipe', 'inherit'],
    })
    const guest = new GuestProcess(child)
    await guest.#handedOff()
    return guest
  }

  get pid(): number {
    return this.#child.pid!
  }

  /** Whether only faults of user mode are handed off, because the kernel allows no more. */
  get isUserModeOnly(): boolean {
    return this.#ready!.user_mode_only
  }

  /** Asks for something, and waits for the answer. */
  ask<T>(op: string, details: Readonly<Record<string, unknown>>): Promise<T> {
    const id = this.#nextId++
    const answer = new Promise<unknown>((resolve, reject) => {
      this.#waiting.set(id, { resolve, reject })
    })
    this.#child.stdin!.write(`${JSON.stringify({ id, op, ...details })}\n`)
    return answer as Promise<T>
  }

  /** Ends the process, and resolves when it is gone. */
  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return
    const exited = once(this.#child, 'exit')
    this.#child.kill('SIGKILL')
    await exited
  }

  async #handedOff(): Promise<void> {
    this.#child.stdin!.on('error', () => {})
    await new Promise<void>((resolve, reject) => {
      const end = (why: string) => {
        const error = new Error(`The guest process ${why}`)
        reject(error)
        for (const { reject: giveUp } of this.#waiting.values()) giveUp(error)
      }
      this.#child.once('error', ({ message }) => end(`cannot be started: ${message}`))
      this.#child.once('exit', () => end('has exited'))
      createInterface({ input: this.#child.stdout! }).on('line', (text) => {
        const { ready, reply, failed } = JSON.parse(text) as Line
        if (ready !== undefined) {
          this.#ready = ready
          resolve()
        }
        if (failed !== undefined) end(`gives up: ${failed.message}`)
        if (reply !== undefined) this.#answer(reply)
      })
    })
  }

  #answer({ id, ok, error }: NonNullable<Line['reply']>): void {
    const waiting = this.#waiting.get(id)
    this.#waiting.delete(id)
    if (error === undefined) waiting?.resolve(ok)
    else waiting?.reject(new Error(`The guest cannot do that: ${error.message}`))
  }
}
