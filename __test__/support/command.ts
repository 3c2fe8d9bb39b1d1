import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { type ExecutionContext } from 'ava'
import { deadlineMs } from './guest.js'

/** The command, as it was built. */
export const cli = fileURLToPath(new URL('../../dist/cli.js', import.meta.url))

/** A line of JSON that the command wrote. */
export type Event = { readonly event: string } & Readonly<Record<string, unknown>>

/** How a command ended. */
export interface Ended {
  readonly status: number | null
  readonly signal: NodeJS.Signals | null
  readonly stdout: string
  readonly stderr: string
}

/** `uffd-rs-serve` as a process of its own, gone after the test. */
export class CommandProcess {
  readonly #child: ChildProcess
  readonly #lines: string[] = []
  readonly #watchers = new Set<() => void>()
  readonly ended: Promise<Ended>
  #over = false

  constructor(t: ExecutionContext, ...args: string[]) {
    t.timeout(deadlineMs)
    const child = spawn(process.execPath, [cli, ...args], { stdio: ['ignore', 'pipe', 'pipe'] })
    this.#child = child
    t.teardown(() => child.kill('SIGKILL'))
    let stderr = ''
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      stderr += text
    })
    createInterface({ input: child.stdout }).on('line', (line) => {
      this.#lines.push(line)
      this.#look()
    })
    this.ended = once(child, 'close').then(([status, signal]) => {
      this.#over = true
      this.#look()
      const stdout = this.#lines.join('\n')
      return { status, signal, stdout, stderr }
    })
  }

  get pid(): number {
    return this.#child.pid!
  }

  /** What it has written so far, as JSON lines. */
  get events(): Event[] {
    return this.#lines.map((line) => JSON.parse(line) as Event)
  }

  /** Waits for an event of this name, after so many others of it. */
  event(name: string, after = 0): Promise<Event> {
    const find = () => this.events.filter(({ event }) => event === name)[after]
    return this.#found(find, `the event ${name}`)
  }

  /** Waits for a line. */
  line(pattern: RegExp): Promise<string> {
    return this.#found(() => this.#lines.find((line) => pattern.test(line)), `${pattern}`)
  }

  signal(signal: NodeJS.Signals): void {
    this.#child.kill(signal)
  }

  /** Reads no more of its output. */
  closeOutput(): void {
    this.#child.stdout!.destroy()
  }

  async #found<T>(find: () => T | undefined, what: string): Promise<T> {
    for (;;) {
      const found = find()
      if (found !== undefined) return found
      if (this.#over) throw new Error(`It ended without ${what}: ${this.#lines.join()}`)
      await new Promise<void>((resolve) => this.#watchers.add(resolve))
    }
  }

  #look(): void {
    for (const resolve of this.#watchers) resolve()
    this.#watchers.clear()
  }
}

/** Runs a command to its end. */
export const runCommand = async (t: ExecutionContext, ...args: string[]): Promise<Ended> =>
  await new CommandProcess(t, ...args).ended
