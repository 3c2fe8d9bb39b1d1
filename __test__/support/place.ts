import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { type ExecutionContext } from 'ava'
import { listen, type ListenOptions, type Server } from '../../src/index.js'
import { deadlineMs, GuestProcess } from './guest.js'
import { snapshotFile, temporaryDirectory } from './stage.js'

/** The package as it was built, for `require`. */
export const index = fileURLToPath(new URL('../../dist/cjs/index.cjs', import.meta.url))

/** Where a Linux has a tmpfs for everybody. */
const memory = '/dev/shm'

/** Pages of each guest. */
export const pages = 64

/** A server in a Node of its own. */
interface Elsewhere {
  readonly child: ChildProcess
  readonly socket: string
  /** The next line that it writes. */
  readonly line: () => Promise<string>
  /** Kills it. */
  readonly end: () => Promise<void>
}

/** What outlives every server of a test. */
export class Place {
  readonly stateDir: string
  readonly #t: ExecutionContext
  readonly #snapshot: string
  #sockets = 0

  constructor(t: ExecutionContext) {
    t.timeout(deadlineMs)
    this.#t = t
    this.stateDir = join(temporaryDirectory(t, memory), 'state')
    this.#snapshot = snapshotFile(t, pages)
  }

  options() {
    const socket = join(temporaryDirectory(this.#t), `${this.#sockets++}.sock`)
    return { socket, snapshot: this.#snapshot, stateDir: this.stateDir }
  }

  /**
   * A server in a Node of its own, started by the program `by`; `then` is what it does once a guest
   * was touched.
   */
  async elsewhere(
    then = '',
    more: Pick<ListenOptions, 'guardian'> = {},
    by: readonly string[] = [],
  ): Promise<Elsewhere> {
    const options = { ...this.options(), ...more }
    const script = `
      const { listen } = require(${JSON.stringify(index)})
      listen(${JSON.stringify(options)}).then(async (server) => {
        console.log('ready')
        server.on('guarded', () => console.log('guarded', server.guardian.pid))
        process.stdin.once('data', () => { ${then} })
      })`
    const [program, ...args] = [...by, process.execPath, '-e', script]
    const child = spawn(program, args, { stdio: ['pipe', 'pipe', 'pipe'] })
    this.#t.teardown(() => child.kill('SIGKILL'))
    child.stderr.resume()
    const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]()
    const line = async () => (await lines.next()).value as string
    await line()
    const end = async () => {
      child.kill('SIGKILL')
      await once(child, 'exit')
    }
    return { child, socket: options.socket, line, end }
  }

  /** A guest that was touched, and whose server was killed. */
  async left(): Promise<GuestProcess> {
    const server = await this.elsewhere()
    const guest = await this.guest(server.socket)
    await live(guest)
    await server.end()
    return guest
  }

  async guest(socket: string): Promise<GuestProcess> {
    const guest = await GuestProcess.start(socket, String(pages))
    this.#t.teardown(() => guest.kill())
    return guest
  }

  /** A server here. */
  async here(more: Partial<ListenOptions> = {}): Promise<Server> {
    const server = await listen({ ...this.options(), ...more })
    this.#t.teardown(() => server.stop())
    return server
  }
}

/** Writes to some pages, and gives others back. */
export async function live(guest: GuestProcess): Promise<void> {
  await guest.ask({ op: 'write', page: 3, count: 2, stamp: 9 })
  await guest.ask({ op: 'madvise', page: 8, count: 4 })
}

/** Nothing of that is lost, and all the rest is the snapshot. */
export async function isAsItWas(t: ExecutionContext, guest: GuestProcess): Promise<void> {
  t.is(await guest.wrong(0, 3, 'source'), 0)
  const op = { op: 'verify', page: 3, count: 2, expect: [{ stamp: 9 }] }
  t.is((await guest.ask<{ wrong: number }>(op)).wrong, 0)
  t.is(await guest.wrong(8, 4, 'zeros'), 0)
  t.is(await guest.wrong(12, pages - 12, 'source'), 0)
}
