import { type ChildProcess, execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync, writeFileSync } from 'node:fs'
import { setImmediate } from 'node:timers/promises'
import { promisify } from 'node:util'
import xterm from '@xterm/headless'
import { type ExecutionContext } from 'ava'
import { cli } from './command.js'
import { deadlineMs } from './guest.js'

export interface Size {
  readonly cols: number
  readonly rows: number
}

/** Whether there is what makes terminals here (`script` of util-linux). */
export const canMakeTerminals = async (): Promise<boolean> =>
  await promisify(execFile)('script', ['--version']).then(
    () => true,
    () => false,
  )

/** The command in a terminal of the kernel's, and what a person sees there. */
export class TerminalProcess {
  readonly #child: ChildProcess
  readonly #screen: xterm.Terminal
  readonly #watchers = new Set<() => void>()
  readonly ended: Promise<number | null>
  #isOver = false
  #drains = 0

  constructor(t: ExecutionContext, size: Size, ...args: string[]) {
    t.timeout(2 * deadlineMs)
    this.#screen = new xterm.Terminal({ ...size, scrollback: 1000, allowProposedApi: true })
    const words = [process.execPath, cli, ...args].map((word) => `"${word}"`).join(' ')
    // `script` stops when its child does, so it gets one that does not.
    const inside = `tty; stty rows ${size.rows} cols ${size.cols}; trap : INT; sh -c 'echo pid $$; exec ${words}'; exit $?`
    const { XTERM_VERSION: _, ...others } = process.env
    const env = { ...others, TERM: 'xterm-256color', SHELL: '/bin/sh' }
    const child = spawn('script', ['-qfec', inside, '/dev/null'], {
      stdio: ['pipe', 'pipe', 'inherit'],
      env,
    })
    this.#child = child
    // It may have ended when something is typed.
    child.stdin.on('error', () => {})
    t.teardown(() => {
      child.kill('SIGKILL')
      this.#screen.dispose()
    })
    child.stdout.on('data', (data: Buffer) => this.#screen.write(data, () => this.#look()))
    this.ended = once(child, 'close').then(async ([status]) => {
      // What was written last is on the screen a little later.
      await new Promise<void>((resolve) => this.#screen.write('', resolve))
      this.#isOver = true
      this.#look()
      return status as number | null
    })
  }

  /** All lines, those that were scrolled away as well, without the blanks at their ends. */
  get lines(): string[] {
    const { active } = this.#screen.buffer
    const all = Array.from({ length: active.length }, (_, at) => active.getLine(at)!)
    return all.map((line) => line.translateToString(true))
  }

  /** How many lines go on in the next one because the terminal is too narrow. */
  wrapped(pattern: RegExp): number {
    const { active } = this.#screen.buffer
    return this.lines.filter((line, at) => pattern.test(line) && active.getLine(at + 1)?.isWrapped)
      .length
  }

  /** Waits until the lines are such, and returns them. */
  async until(holds: (lines: readonly string[]) => boolean): Promise<string[]> {
    for (;;) {
      const { lines } = this
      if (holds(lines)) return lines
      if (this.#isOver) throw new Error(`It ended with:\n${lines.join('\n')}`)
      await new Promise<void>((resolve) => this.#watchers.add(resolve))
    }
  }

  /**
   * Changes the terminal's size, as a person at its window does. The command stands still meanwhile:
   * what it writes for one size is not shown at another.
   */
  async resize({ cols, rows }: Size): Promise<void> {
    const lines = await this.until((all) => all.some((line) => line.startsWith('pid ')))
    const tty = lines.find((line) => line.startsWith('/dev/pts/'))!
    const pid = Number(lines.find((line) => line.startsWith('pid '))!.slice('pid '.length))
    process.kill(pid, 'SIGSTOP')
    while (!/^State:\s+T/m.test(readFileSync(`/proc/${pid}/status`, 'utf8'))) await setImmediate()
    await this.#drained(tty)
    this.#screen.resize(cols, rows)
    await promisify(execFile)('stty', ['-F', tty, 'cols', `${cols}`, 'rows', `${rows}`])
    process.kill(pid, 'SIGCONT')
  }

  /** Waits until all that was written is on the screen: a title that comes after it is there. */
  async #drained(tty: string): Promise<void> {
    const title = `drained ${(this.#drains += 1)}`
    const seen = new Promise<void>((resolve) => {
      const listening = this.#screen.onTitleChange((now) => {
        if (now !== title) return
        listening.dispose()
        resolve()
      })
    })
    writeFileSync(tty, `\u001B]2;${title}\u0007`)
    await seen
  }

  /** Types ^C. */
  interrupt(): void {
    this.#child.stdin!.write('\u0003')
  }

  #look(): void {
    for (const resolve of this.#watchers) resolve()
    this.#watchers.clear()
  }
}
