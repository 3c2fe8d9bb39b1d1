import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'

/** How long anything may take before a test fails instead of hanging. */
export const deadlineMs = 60_000

const program = fileURLToPath(new URL('../../dist/guest-program.js', import.meta.url))

interface Reply {
  readonly id: number
  readonly ok?: unknown
  readonly error?: { readonly message: string }
}

interface Line {
  readonly ready?: { readonly pid: number }
  readonly reply?: Reply
  readonly failed?: { readonly message: string }
}

/** A request to the guest program, as crates/guest/src/protocol.rs has it. */
export type Op = { readonly op: string } & Record<string, unknown>

/** A guest process: it hands off like Firecracker, then does as it is told. */
export class GuestProcess {
  readonly #child: ChildProcess
  readonly #waiting = new Map<
    number,
    { resolve: (ok: unknown) => void; reject: (e: Error) => void }
  >()
  readonly #exited: Promise<number | null>
  #nextId = 1

  private constructor(child: ChildProcess) {
    this.#child = child
    this.#exited = once(child, 'exit').then(([code]) => {
      for (const { reject } of this.#waiting.values()) reject(new Error('the guest exited'))
      return code as number | null
    })
  }

  /** Starts a guest; resolves once it has handed off, or was told to be silent. */
  static async start(socket: string, pages: string, ...args: string[]): Promise<GuestProcess> {
    const child = spawn(
      process.execPath,
      [program, '--socket', socket, '--pages', pages, ...args],
      {
        stdio: ['pipe', 'pipe', 'inherit'],
      },
    )
    const guest = new GuestProcess(child)
    await new Promise<void>((resolve, reject) => {
      createInterface({ input: child.stdout }).on('line', (line) => {
        const { ready, reply, failed } = JSON.parse(line) as Line
        if (ready !== undefined) resolve()
        if (failed !== undefined) reject(new Error(failed.message))
        if (reply !== undefined) guest.#answer(reply)
      })
      child.on('exit', () => reject(new Error('the guest exited before its handoff')))
    })
    return guest
  }

  get pid(): number {
    return this.#child.pid!
  }

  /** Resolves with the exit status once the process has ended, however that came. */
  get exited(): Promise<number | null> {
    return this.#exited
  }

  /** Asks for something, and waits for the answer. */
  ask<T>(op: Op): Promise<T> {
    const id = this.#nextId++
    const answer = new Promise((resolve, reject) => this.#waiting.set(id, { resolve, reject }))
    this.#child.stdin!.write(`${JSON.stringify({ id, ...op })}\n`)
    return answer as Promise<T>
  }

  /** Reads pages whole, and counts those that hold something else than expected. */
  async wrong(page: number, count: number, expect: 'source' | 'zeros'): Promise<number> {
    const op = { op: 'verify', page, count, expect: [expect] }
    const { pages, wrong } = await this.ask<{ pages: number; wrong: number }>(op)
    if (pages !== count) throw new Error(`${pages} of ${count} pages were compared`)
    return wrong
  }

  /** Ends in good order; resolves with the exit status. */
  exit(): Promise<number | null> {
    this.#child.stdin!.end()
    return this.#exited
  }

  kill(): Promise<number | null> {
    this.#child.kill('SIGKILL')
    return this.#exited
  }

  #answer({ id, ok, error }: Reply): void {
    const waiting = this.#waiting.get(id)
    this.#waiting.delete(id)
    if (error === undefined) waiting?.resolve(ok)
    else waiting?.reject(new Error(error.message))
  }
}
