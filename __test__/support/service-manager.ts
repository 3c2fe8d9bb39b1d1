import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { type ExecutionContext } from 'ava'
import { type Event } from './command.js'
import { deadlineMs } from './guest.js'
import { temporaryDirectory } from './stage.js'

const target = process.env['CARGO_TARGET_DIR'] ?? '../../target'
export const managerProgram = fileURLToPath(
  new URL(`${target}/debug/uffd-manager`, import.meta.url),
)

/** What a manager has, as crates/manager/src/orders.rs has it. */
interface Options {
  readonly notify?: string
  readonly store?: number
  readonly listen?: readonly string[]
  readonly watchdogUsec?: number
}

/** Something a service told its manager. */
interface Said {
  readonly said: string
  /** Whether a descriptor came with it. */
  readonly fd: boolean
}

interface Happened extends Partial<Said> {
  readonly line?: string
  readonly error?: string
  readonly started?: number
  readonly store?: readonly string[]
  readonly ended?: { readonly code: number | null; readonly signal: number | null }
}

/** A service manager that starts one service again and again, and keeps descriptors for it. */
export class ServiceManager {
  readonly notify: string
  readonly #child: ChildProcess
  readonly #happened: Happened[] = []
  readonly #watchers = new Set<() => void>()
  /** What happened before the service was started for the last time. */
  #before = 0
  #over = false

  constructor(t: ExecutionContext, { notify, store = 16, ...more }: Options = {}) {
    // A test starts several processes one after the other.
    t.timeout(2 * deadlineMs)
    this.notify = notify ?? join(temporaryDirectory(t), 'notify')
    const options = JSON.stringify({ notify: this.notify, store, ...more })
    this.#child = spawn(managerProgram, [options], { stdio: ['pipe', 'pipe', 'inherit'] })
    t.teardown(async () => {
      if (this.#over) return
      this.#child.stdin!.end()
      await once(this.#child, 'close')
    })
    createInterface({ input: this.#child.stdout! }).on('line', (line) => {
      this.#happened.push(JSON.parse(line) as Happened)
      this.#look()
    })
    this.#child.on('close', () => {
      this.#over = true
      this.#look()
    })
  }

  /** Starts the service, with these variables besides or instead of the manager's. */
  async start(command: readonly string[], env: Record<string, string> = {}): Promise<number> {
    this.#before = this.#happened.length
    this.#order({ op: 'start', program: command, env })
    return await this.#found(({ started }) => started)
  }

  /** Sends the service a signal, and waits for its end. */
  async end(signal: number): Promise<{ code: number | null; signal: number | null }> {
    this.#order({ op: 'kill', signal })
    return await this.ended()
  }

  /** Waits for the end of the service. */
  async ended(): Promise<{ code: number | null; signal: number | null }> {
    return await this.#found(({ ended }) => ended)
  }

  /** What the service writes, as JSON lines: the next event of this name, after so many of it. */
  async event(name: string, after = 0): Promise<Event> {
    return await this.#found(({ line }) => {
      const event = line === undefined ? undefined : (JSON.parse(line) as Event)
      return event?.event === name ? event : undefined
    }, after)
  }

  /** What it writes to its standard error. */
  async error(pattern: RegExp): Promise<string> {
    return await this.#found(({ error }) =>
      error !== undefined && pattern.test(error) ? error : undefined,
    )
  }

  /** The next thing it is told that is like this, after so many others. */
  async told(pattern: RegExp, after = 0): Promise<Said> {
    return await this.#found(
      ({ said, fd }) =>
        said !== undefined && pattern.test(said) ? { said, fd: fd === true } : undefined,
      after,
    )
  }

  /** All it was told since the service was started. */
  get said(): string[] {
    return this.#happened.slice(this.#before).flatMap(({ said }) => said ?? [])
  }

  /** The names of what it keeps. */
  async kept(): Promise<readonly string[]> {
    const asked = this.#happened.filter(({ store }) => store !== undefined).length
    this.#order({ op: 'store' })
    const before = this.#before
    this.#before = 0
    try {
      return await this.#found(({ store }) => store, asked)
    } finally {
      this.#before = before
    }
  }

  /** Keeps something that is no userfaultfd. */
  keepNonsense(name: string): void {
    this.#order({ op: 'keep', name })
  }

  rename(from: string, to: string): void {
    this.#order({ op: 'rename', from, to })
  }

  /** Reads nothing of what it is told. */
  beDeaf(deaf: boolean): void {
    this.#order({ op: 'deaf', deaf })
  }

  #order(order: Record<string, unknown>): void {
    this.#child.stdin!.write(`${JSON.stringify(order)}\n`)
  }

  async #found<T>(find: (happened: Happened) => T | undefined, after = 0): Promise<T> {
    for (;;) {
      const all = this.#happened.slice(this.#before).map(find)
      const found = all.filter((one) => one !== undefined)[after]
      if (found !== undefined) return found
      if (this.#over) throw new Error(`It ended: ${JSON.stringify(this.#happened)}`)
      await new Promise<void>((resolve) => this.#watchers.add(resolve))
    }
  }

  #look(): void {
    for (const resolve of this.#watchers) resolve()
    this.#watchers.clear()
  }
}
