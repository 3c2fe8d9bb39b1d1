import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'

const program = fileURLToPath(new URL('../../cli.js', import.meta.url))

/** The command as a process of its own, to be killed. */
export class ServerProcess implements AsyncDisposable {
  readonly #child: ChildProcess

  /** Nothing but this process ends it: it goes with it. */
  readonly #onExit = () => void this.#child.kill('SIGKILL')

  private constructor(child: ChildProcess) {
    this.#child = child
    process.on('exit', this.#onExit)
    child.once('exit', () => process.off('exit', this.#onExit))
  }

  /** Starts the command with these arguments; resolves once it accepts guests. */
  static async start(...args: string[]): Promise<ServerProcess> {
    const child = spawn(process.execPath, [program, ...args, '--json'], {
      stdio: ['ignore', 'pipe', 'pipe'],
    })
    let said = ''
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      said += text
    })
    const server = new ServerProcess(child)
    await new Promise<void>((resolve, reject) => {
      child.once('error', reject)
      child.once('exit', () => reject(new Error(`The server could not be started: ${said}`)))
      createInterface({ input: child.stdout }).on('line', (line) => {
        if ((JSON.parse(line) as { event: string }).event === 'ready') resolve()
      })
    })
    return server
  }

  get pid(): number {
    return this.#child.pid!
  }

  /** Sends SIGKILL, and resolves when the process is gone. */
  async kill(): Promise<void> {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return
    const exited = once(this.#child, 'exit')
    this.#child.kill('SIGKILL')
    await exited
  }

  /** The same as {@link kill}. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.kill()
  }
}
