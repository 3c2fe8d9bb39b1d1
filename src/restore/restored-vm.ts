import { type PrefaultReport } from '#native'
import { type BalloonInfo } from '../firecracker/balloon.js'
import { type FirecrackerClient } from '../firecracker/client.js'
import { type MachineConfigInfo } from '../firecracker/machine-config.js'
import { type FirecrackerVersion } from '../firecracker/version.js'
import { type GuestEnd } from '../guest/end.js'
import { type Guest } from '../guest/guest.js'
import { type Server } from '../server/server.js'

/** What a restore has started, and what it found. */
export type Restored = Pick<
  RestoredVm,
  'guest' | 'server' | 'client' | 'version' | 'machineConfig' | 'balloon' | 'resumed' | 'prefetched'
> & { readonly release: () => void }

/** A microVM that was restored and whose memory is served. Comes from `restore`. */
export class RestoredVm implements AsyncDisposable {
  /** Its memory: events, page states, statistics. */
  readonly guest: Guest
  /** What received the guest. Accepts no other: its socket is gone. */
  readonly server: Server
  /** Firecracker's API. */
  readonly client: FirecrackerClient
  /** The version of the Firecracker that runs it. */
  readonly version: FirecrackerVersion
  /** Its machine configuration, as Firecracker told it after the load. */
  readonly machineConfig: MachineConfigInfo
  /** Its balloon, as Firecracker told it after the load; `undefined` if it has none. */
  readonly balloon: BalloonInfo | undefined
  /** Whether the guest was resumed; else it is paused. */
  readonly resumed: boolean
  /**
   * What came of the prefetch, once all of it is done; goes on while the guest runs. `undefined`
   * without a trace to prefetch. Rejected with ERR_UFFD_GUEST_ENDED if the guest ends before.
   */
  readonly prefetched: Promise<PrefaultReport> | undefined
  readonly #release: () => void

  /** @internal */
  constructor(restored: Restored) {
    this.guest = restored.guest
    this.server = restored.server
    this.client = restored.client
    this.version = restored.version
    this.machineConfig = restored.machineConfig
    this.balloon = restored.balloon
    this.resumed = restored.resumed
    this.prefetched = restored.prefetched
    this.#release = restored.release
  }

  /** Whether the guest gives free pages back by itself. */
  get freePageReporting(): boolean {
    return this.balloon?.freePageReporting ?? false
  }

  /** Whether the guest can be asked for its free pages. */
  get freePageHinting(): boolean {
    return this.balloon?.freePageHinting ?? false
  }

  /** Resolves when its memory is served no longer, with the reason; is never rejected. */
  get ended(): Promise<GuestEnd> {
    return this.guest.ended
  }

  /**
   * Gives the prefetch up and serves the memory no longer. Firecracker is left alone, and its
   * guest waits at the next page it misses: end or pause it first. May be called again.
   */
  async stop(): Promise<GuestEnd> {
    this.#release()
    await this.server.stop()
    return await this.guest.stop()
  }

  /**
   * Gives the prefetch up and leaves the memory in the state directory, to whoever listens there
   * next with the same snapshot: it ends as `handed-over`, and Firecracker's guest waits at the
   * next page it misses until then.
   *
   * @throws {UffdError} ERR_UFFD_NO_STATE_DIR if it was restored without one.
   */
  async handOver(): Promise<GuestEnd> {
    this.server.requireStateDir()
    this.#release()
    await this.server.handOver()
    return await this.guest.ended
  }

  /** The same as {@link stop}. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop()
  }
}
