import { join } from 'node:path'
import { type ExecutionContext } from 'ava'
import { restore, type RestoredVm, type RestoreOptions } from '../../src/index.js'
import { FirecrackerApi, type FirecrackerApiOptions } from './firecracker-api.js'
import { minorOf, type JsonObject } from './firecracker-api/published.js'
import { deadlineMs, GuestProcess } from './guest.js'
import { snapshotFile } from './stage.js'

/** What of Firecracker a test plays otherwise than usual. */
export interface Played extends FirecrackerApiOptions {
  /** Pages of the snapshot. @default 64 */
  readonly pages?: number
  /** Bytes of a page. @default 4096 */
  readonly pageSize?: 4096 | 2097152
  /** More arguments of the guest program, such as wrong handoffs. */
  readonly guestArgs?: readonly string[]
  /** Pages of free memory that the guest reports once it runs, if its balloon can. */
  readonly freePages?: { readonly page: number; readonly count: number }
  /** Called between the handoff and the answer of the load. */
  readonly afterHandoff?: (firecracker: Firecracker) => Promise<void>
  /** No handoff is made: the load is answered at once. */
  readonly withoutHandoff?: boolean
}

/** How a version hands off: before 1.12 by one name of the page size, and then it hangs up. */
function handoffOf(version: string): readonly string[] {
  return minorOf(version) < 12 ? ['--dialect', '1.7', '--close-socket'] : []
}

/**
 * A Firecracker as `restore` sees it: its API, and a guest process behind it that hands off when
 * the snapshot is loaded. If the guest process ends, the API does.
 */
export class Firecracker {
  readonly api: FirecrackerApi
  readonly snapshot: string
  readonly pages: number
  readonly #t: ExecutionContext
  #guest: GuestProcess | undefined
  #exited: Promise<void> | undefined

  private constructor(t: ExecutionContext, api: FirecrackerApi, snapshot: string, pages: number) {
    this.#t = t
    this.api = api
    this.snapshot = snapshot
    this.pages = pages
  }

  static async start(t: ExecutionContext, played: Played = {}): Promise<Firecracker> {
    t.timeout(deadlineMs)
    const { pages = 64, pageSize = 4096, freePages } = played
    const { version = '1.16.1', guestArgs = [] } = played
    const args = ['--page-size', String(pageSize), ...handoffOf(version), ...guestArgs]
    const api = await FirecrackerApi.start({
      ...played,
      onLoadSnapshot: async (body) => {
        await played.onLoadSnapshot?.(body)
        if (!played.withoutHandoff) await firecracker.#handOff(body, args)
        await played.afterHandoff?.(firecracker)
      },
      onState: async (state) => {
        await played.onState?.(state)
        const reports = api.vm.balloon?.['free_page_reporting'] === true
        if (state === 'Running' && reports && freePages !== undefined) {
          await firecracker.guest.ask({ op: 'madvise', ...freePages })
        }
      },
      // Firecracker reads all memory for a full snapshot, by system calls.
      onCreateSnapshot: async (body) => {
        await played.onCreateSnapshot?.(body)
        if (body['snapshot_type'] === 'Diff') return
        await firecracker.guest.ask({ op: 'kernel_read', page: 0, count: pages })
      },
    })
    const firecracker = new Firecracker(t, api, snapshotFile(t, pages, pageSize), pages)
    t.teardown(() => firecracker.close())
    return firecracker
  }

  /** The guest process; there is none before the load. */
  get guest(): GuestProcess {
    if (this.#guest === undefined) throw new Error('nothing was loaded')
    return this.#guest
  }

  /** Where its handler listens unless told otherwise. */
  get socket(): string {
    return `${this.api.socketPath}.uffd`
  }

  /** The options of `restore` that every test needs. */
  get options() {
    return {
      apiSocket: this.api.socketPath,
      snapshotState: join(this.snapshot, '..', 'state'),
      snapshot: this.snapshot,
    }
  }

  /** The microVM, restored, and stopped at the end of the test. */
  async restore(more: RestoreOptions = {}): Promise<RestoredVm> {
    const vm = await restore({ ...this.options, ...more })
    this.#t.teardown(() => vm.stop())
    return vm
  }

  /** The routes that were asked for, in order. */
  get routes(): string[] {
    return this.api.requests.map(({ route }) => route)
  }

  async close(): Promise<void> {
    await this.#guest?.kill()
    await this.#exited
    await this.api.close()
  }

  async #handOff(body: JsonObject, guestArgs: readonly string[]): Promise<void> {
    const backend = body['mem_backend'] as JsonObject
    const socket = backend['backend_path'] as string
    this.#guest = await GuestProcess.start(socket, String(this.pages), ...guestArgs)
    this.#exited = this.#guest.exited.then(() => this.api.exit())
  }
}
