import { EventEmitter } from 'node:events'
import {
  type GuestOwner,
  type MemoryPicture,
  type NativeEvent,
  type NativeGuest,
  type Notice,
  type PrefaultReport,
  type Region,
  type ReleaseProgress,
  type Stats,
  type Tracking,
} from '#native'
import { aborted, orAborted } from '../abort.js'
import { type KeepAlive } from '../keep-alive.js'
import { type UffdError } from '../errors.js'
import { calling, fromNative } from '../native-errors.js'
import { namingCaller } from '../stack.js'
import { tell } from '../tell.js'
import { fromWords, type TraceEntry } from '../trace/entries.js'
import { checkTrace, type PageSize, Trace } from '../trace/trace.js'
import { abortSignal, argument, boolean, object, optional, options } from '../validate.js'
import { warn } from '../warn.js'
import { guestEnd, type GuestEnd } from './end.js'
import { type GuestPeer, type Tags, tagsOf, type TagsFor } from './peer.js'
import { DirtyPages, PageStates } from './page-states.js'
import { pageRanges, type Pages } from './pages.js'
import { guestEnded, type Answer, type Requests } from './requests.js'

/** What a guest tells; the values are the arguments of the listeners. */
export interface GuestEvents {
  /**
   * Counters and latencies, every `statsIntervalMs` of the server. One that JavaScript was too
   * busy to take is replaced by the next.
   */
  stats: [stats: Stats]
  /** First touches in order, in batches. None is lost, however late they are taken. */
  trace: [entries: readonly TraceEntry[]]
  /**
   * Something worth a line in a log. Up to 64 are kept for the first listener.
   */
  notice: [notice: Notice]
  /**
   * How far a release has come: now and then, and when everything is installed. One that
   * JavaScript was too busy to take is replaced by the next.
   */
  releasing: [progress: ReleaseProgress]
  /** The guest has ended: exactly once, after everything else. */
  end: [end: GuestEnd]
}

/** An operation that can be given up. */
export interface Abortable {
  /** Gives it up when it fires. */
  readonly signal?: AbortSignal | undefined
}

/** How to release a guest. */
export interface ReleaseOptions extends Abortable {
  /**
   * Allows it although dirty pages are tracked. Nobody sees a write any more once the guest is
   * released, and its `dirtyPages()` cannot be had: ask for them before, while it is paused, if a
   * diff snapshot is to be made of it. Later snapshots of it have to be full ones.
   * @default false
   */
  readonly endsTracking?: boolean | undefined
}

type GuestEvent = Extract<
  NativeEvent,
  { type: 'stats' | 'trace' | 'notice' | 'releasing' | 'ended' }
>

/** Whether pages that are wanted early are installed, or only read into the host's memory. */
export type PrefetchMode = 'install' | 'fetch'

/** What each guest of a server begins with. */
export interface Prefetch {
  readonly trace: Trace
  readonly mode: PrefetchMode
}

/** How a guest came. */
export interface Coming {
  readonly recovered: boolean
  /** None for a guest that was taken over. */
  readonly prefetch: Prefetch | undefined
}

/** What a guest needs of its server. */
export interface Surroundings {
  readonly requests: Requests
  readonly keepAlive: KeepAlive
  readonly statsIntervalMs: number
  readonly tags: TagsFor | undefined
  /** The memory file that its pages come from. */
  readonly snapshot: string
}

const mostKeptNotices = 64

/** Of what was noticed, the last that are remembered for whoever looks into the server. */
const mostRemembered = 16

/** What a guest had of late, for whoever looks for what is wrong with it. */
export interface Lately {
  /** The last notices, each with its time. */
  readonly notices: readonly (Pick<Notice, 'kind' | 'page' | 'message'> & { readonly at: string })[]
  /** How far a release had come. */
  readonly releasing: ReleaseProgress | undefined
}

const checkAbortable = object<Abortable>({ signal: optional(abortSignal) })

const checkReleaseOptions = object<ReleaseOptions>({
  endsTracking: optional(boolean),
  signal: optional(abortSignal),
})

/** Where the server reaches its guests, out of users' sight. */
export const internals = new WeakMap<Guest, (event: GuestEvent) => void>()

/**
 * A microVM whose memory is being served. It is served whether or not anybody holds or listens
 * to this object, until it exits, is stopped, or cannot be served any longer.
 */
export class Guest extends EventEmitter<GuestEvents> implements AsyncDisposable {
  readonly #native: NativeGuest
  readonly #surroundings: Surroundings
  readonly #id: number
  readonly #ended: Promise<GuestEnd>
  readonly #resolveEnded: (end: GuestEnd) => void
  readonly #keptNotices: Notice[] = []
  readonly #remembered: Lately['notices'][number][] = []
  #releasing: ReleaseProgress | undefined
  #end: GuestEnd | undefined
  #endIsAwaited = false
  #subscribed = ''

  /** Different for each handoff, and the same after another process has taken the guest over. */
  readonly id: string

  /**
   * The process that handed off, or `undefined` where it cannot be seen from here. Whether the
   * memory is its own says {@link owner}.
   */
  readonly pid: number | undefined

  /**
   * The effective user of that process at the handoff, as this process sees it: each Firecracker
   * of a jailer can have its own, by which clones are told apart where their process ids cannot be
   * seen. `undefined` once another process has taken the guest over.
   */
  readonly uid: number | undefined

  /** The same of its group. */
  readonly gid: number | undefined

  /** Whether another process had left it, and this one has taken it over. */
  readonly recovered: boolean

  /** What was known of that process when the guest came: how jails and clones are told apart. */
  readonly peer: GuestPeer

  /** What the server's `tags` gave for it; without that, none. */
  readonly tags: Tags

  /** What came of the server's `prefetch`, if it had one; of a guest that was taken over, none. */
  readonly prefetched: Promise<PrefaultReport> | undefined

  /** Its memory, in the order of snapshot offsets. */
  readonly regions: readonly Region[]

  /** Its page size in bytes: 4096 or 2097152. */
  readonly pageSize: PageSize

  /** How its dirty pages are tracked: not (`off`), by faults (`sync`), by the kernel (`async`). */
  readonly tracking: Tracking

  /** Guests come from a server. */
  constructor(native: NativeGuest, surroundings: Surroundings, { recovered, prefetch }: Coming) {
    super()
    this.#native = native
    this.#surroundings = surroundings
    this.#id = native.id
    this.id = native.handoffId
    this.pid = native.pid ?? undefined
    this.uid = native.uid ?? undefined
    this.gid = native.gid ?? undefined
    const { name, cgroup, root } = native.process ?? {}
    const { pid, uid, gid } = this
    this.peer = Object.freeze({ pid, uid, gid, name, cgroup, root })
    this.tags = tagsOf(this.peer, surroundings.tags)
    this.regions = native.regions
    this.pageSize = native.pageSize as PageSize
    this.tracking = native.tracking
    let resolveEnded: (end: GuestEnd) => void
    this.#ended = new Promise((resolve) => {
      resolveEnded = resolve
    })
    this.#resolveEnded = resolveEnded!
    internals.set(this, (event) => this.#take(event))
    this.#watchListeners()
    this.recovered = recovered
    this.prefetched = prefetch && this.#prefetch(prefetch)
  }

  /**
   * Whose memory it is. `peer`: that of the process that handed off, proved by a page that was
   * installed and showed up in its page map. `unproven`: nothing has been installed yet. `other`:
   * another process's, as behind a proxy. `unknowable`: the process cannot be looked into from
   * here. `undefined` once the guest has ended.
   */
  get owner(): GuestOwner | undefined {
    return this.#native.owner ?? undefined
  }

  /** Resolves when the guest has ended, with the reason; is never rejected. */
  get ended(): Promise<GuestEnd> {
    this.#endIsAwaited = true
    return this.#ended
  }

  /** @internal The memory file that its pages come from. */
  get servedFrom(): string {
    return this.#surroundings.snapshot
  }

  /** @internal Its end, if it has ended; asking does not count as waiting for it. */
  get endSoFar(): GuestEnd | undefined {
    return this.#end
  }

  /**
   * Installs pages before they are asked for, in the order given, while faults are served; never
   * over a page the guest gave back. Its report accounts for every page. If the signal fires,
   * the rest is counted as `skipped`: that is an answer, not an error.
   *
   * @throws {UffdError} ERR_UFFD_TRACE_WRONG_SNAPSHOT if the trace is of another snapshot or page
   * size, ERR_UFFD_NO_SUCH_PAGES if the guest lacks one of the pages; then nothing is installed.
   * ERR_UFFD_GUEST_ENDED if it has ended.
   */
  async prefault(pages: Pages, abortable: Abortable = {}): Promise<PrefaultReport> {
    return await this.#ahead('prefault', pages, abortable)
  }

  /**
   * Brings pages into the host's memory and installs none: faults on them wait for no device, and
   * the guest takes up no more memory than it asks for. Otherwise like {@link prefault}; what is
   * in memory then is counted as `fetched`.
   */
  async readAhead(pages: Pages, abortable: Abortable = {}): Promise<PrefaultReport> {
    return await this.#ahead('readAhead', pages, abortable)
  }

  #prefetch({ trace, mode }: Prefetch): Promise<PrefaultReport> {
    const report = mode === 'fetch' ? this.readAhead(trace) : this.prefault(trace)
    // Whoever awaits it is told too; its end says why a guest has ended.
    report.catch((error: UffdError) => {
      if (error.code === 'ERR_UFFD_GUEST_ENDED') return
      warn(`${this.#who} is not prefetched: ${error.message}`, error.code)
    })
    return report
  }

  get #who(): string {
    return this.pid === undefined ? 'A guest' : `The guest of process ${this.pid}`
  }

  async #ahead(
    how: 'prefault' | 'readAhead',
    pages: Pages,
    abortable: Abortable,
  ): Promise<PrefaultReport> {
    const ranges = pageRanges(pages, this.regions, argument('pages'))
    const { signal } = checkAbortable(abortable, options())
    this.#throwIfEnded()
    if (pages instanceof Trace) {
      const refusal = await this.#refusalOf(pages)
      if (refusal !== undefined) throw refusal
      this.#throwIfEnded()
    }
    const prefault = calling(() => this.#native[how](ranges))
    const cancel = () => prefault.cancel()
    if (signal?.aborted) cancel()
    signal?.addEventListener('abort', cancel, { once: true })
    try {
      const { report } = await this.#answer('prefaulted', prefault.request)
      return report
    } finally {
      signal?.removeEventListener('abort', cancel)
    }
  }

  /**
   * First touches so far, in order, as a trace of the guest's snapshot; of a guest that has ended,
   * all of them. Reads at most 4 MiB of the snapshot, the first time for a server.
   *
   * @throws {UffdError} ERR_UFFD_TRACE_SNAPSHOT if the snapshot cannot be read, or was replaced
   * after its last guest had ended.
   */
  async trace(): Promise<Trace> {
    const words = await this.#touches()
    return Trace.fromNative(await this.#surroundings.keepAlive.during(this.#native.takeDown(words)))
  }

  async #touches(): Promise<BigUint64Array> {
    if (this.#end !== undefined) return calling(() => this.#native.keptTrace())
    const { words } = await this.#answer('traced', this.#native.trace())
    return words
  }

  /** Whether a trace is of this guest's snapshot and page size, so that it can be prefaulted. */
  async accepts(trace: Trace): Promise<boolean> {
    const refusal = await this.#refusalOf(checkTrace(trace, argument('trace')))
    if (refusal !== undefined && refusal.code !== 'ERR_UFFD_TRACE_WRONG_SNAPSHOT') throw refusal
    return refusal === undefined
  }

  async #refusalOf(trace: Trace): Promise<UffdError | undefined> {
    const { keepAlive } = this.#surroundings
    const refusal = await keepAlive.during(this.#native.checkTrace(trace.native))
    return refusal ? fromNative(refusal) : undefined
  }

  /** The states of all pages at one moment. */
  async pageStates(): Promise<PageStates> {
    return (await this.exportPages()).pageStates
  }

  /** What a diff snapshot has to hold. Pause the guest first, or it is old when it is read. */
  async dirtyPages(): Promise<DirtyPages> {
    return (await this.exportPages()).dirtyPages
  }

  /** @internal The states of all pages and what is dirty, at the same moment. */
  async exportPages(): Promise<{ pageStates: PageStates; dirtyPages: DirtyPages }> {
    this.#throwIfEnded()
    const { export: exported } = await this.#answer('exported', this.#native.export())
    return {
      pageStates: new PageStates(this.regions, exported),
      dirtyPages: new DirtyPages(exported),
    }
  }

  /** Counters and latencies now; of a guest that has ended, the final ones. */
  async stats(): Promise<Stats> {
    if (this.#end !== undefined) return this.#end.stats
    const { stats } = await this.#answer('counted', this.#native.stats())
    return stats
  }

  /** @internal The values of a guest's metrics, in the order of the table; asks nobody. */
  figures(): Float64Array {
    return this.#native.figures()
  }

  /** @internal What it had of late. */
  lately(): Lately {
    return { notices: [...this.#remembered], releasing: this.#releasing }
  }

  /** @internal Its memory in at most so many cells, now or, where that was kept, at its end. */
  async picture(cells: number): Promise<MemoryPicture> {
    const taken = await this.#surroundings.keepAlive.during(this.#native.picture(cells))
    if ('code' in taken) throw fromNative(taken)
    return taken
  }

  /** @internal Has the picture of its end kept. */
  keepLastPicture(cells: number): void {
    this.#native.keepLastPicture(cells)
  }

  /** Resolves once no fault is in hand and no event unread: with a paused guest, for good. */
  async settle(abortable: Abortable = {}): Promise<void> {
    const { signal } = checkAbortable(abortable, options())
    this.#throwIfEnded()
    const settled = this.#answer('settled', this.#native.settle())
    await orAborted('Waiting for the guest to settle', signal, settled)
  }

  /**
   * Serves the guest no longer: what is in hand is served as far as that goes at once, and every
   * waiting thread is woken. Pages it misses or gives back later block it, so end or pause it
   * first. Resolves with its end, whatever that was; may be called again.
   */
  async stop(): Promise<GuestEnd> {
    this.#native.beginStop()
    return await this.#surroundings.keepAlive.during(this.ended)
  }

  /**
   * Installs everything that is not zeros, in the background: faults are served first. Then the
   * guest is unregistered, needs no handler any more, and ends as `released`; the kernel alone
   * fills what is missing from then on, with zeros. How far it has come is the event `releasing`.
   * If the signal fires, or a page cannot be had, it is given up: the guest is served as before,
   * and what was installed stays.
   *
   * @throws {UffdError} ERR_UFFD_RELEASE_TRACKED if dirty pages are tracked, unless
   * `endsTracking`. ERR_UFFD_RELEASE_SOURCE or ERR_UFFD_RELEASE_MEMORY if pages cannot be had.
   * ERR_UFFD_RELEASE_MAPPINGS if its process has as many mappings as it may have for seconds.
   * ERR_UFFD_RELEASE_UNDER_WAY if it was asked for before. ERR_UFFD_ABORTED, if that came in
   * time. ERR_UFFD_GUEST_ENDED.
   */
  async release(releaseOptions: ReleaseOptions = {}): Promise<GuestEnd> {
    const { endsTracking = false, signal } = checkReleaseOptions(releaseOptions, options())
    this.#throwIfEnded()
    const what = `The release of the guest${this.pid === undefined ? '' : ` of process ${this.pid}`}`
    if (signal?.aborted) throw aborted(what, signal)
    const release = this.#native.release(endsTracking)
    const cancel = () => release.cancel()
    signal?.addEventListener('abort', cancel, { once: true })
    try {
      const { error } = await this.#answer('released', release.request)
      if (error?.code === 'ERR_UFFD_ABORTED' && signal?.aborted) throw aborted(what, signal)
      if (error !== undefined && error !== null) throw fromNative(error)
    } finally {
      signal?.removeEventListener('abort', cancel)
    }
    return await this.#surroundings.keepAlive.during(this.ended)
  }

  /**
   * Kills the VMM's process (SIGKILL), and no other that got its number later; the guest then
   * ends as `guest-exited`. Returns whether there was one to kill: `false` if the guest has
   * ended, or it is not known that the process which handed off is the guest's own.
   */
  kill(): boolean {
    return this.#native.kill()
  }

  /** The same as {@link stop}. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop()
  }

  override removeAllListeners(event?: keyof GuestEvents): this {
    if (event === undefined) {
      super.removeAllListeners()
      this.#watchListeners()
    } else {
      super.removeAllListeners(event)
    }
    this.#subscribe()
    return this
  }

  async #answer<T extends Answer['type']>(
    type: T,
    request: number,
  ): Promise<Extract<Answer, { type: T }>> {
    const { requests, keepAlive } = this.#surroundings
    const answer = await keepAlive.during(namingCaller(requests.answerTo(request, this.#id)))
    if (answer.type !== type) throw new TypeError(`Expected ${type}, got ${answer.type}`)
    return answer as Extract<Answer, { type: T }>
  }

  #throwIfEnded(): void {
    if (this.#end !== undefined) throw guestEnded()
  }

  /** Statistics and trace cost something, so they are asked for while somebody listens. */
  #watchListeners(): void {
    const later = () => queueMicrotask(() => this.#subscribe())
    const internal = this as EventEmitter
    internal.on('newListener', later)
    internal.on('removeListener', later)
  }

  #subscribe(): void {
    if (this.listenerCount('notice') > 0) {
      for (const notice of this.#keptNotices.splice(0)) tell(this, 'notice', notice)
    }
    const stats = this.listenerCount('stats') > 0
    const trace = this.listenerCount('trace') > 0
    const wanted = `${stats} ${trace}`
    if (this.#end !== undefined || wanted === this.#subscribed) return
    this.#subscribed = wanted
    this.#native.report(stats ? this.#surroundings.statsIntervalMs : undefined, trace)
  }

  #take(event: GuestEvent): void {
    switch (event.type) {
      case 'stats':
        return tell(this, 'stats', event.stats)
      case 'trace':
        tell(this, 'trace', fromWords(event.words))
        if (!event.last) this.#native.wantTrace()
        return
      case 'notice':
        return this.#notice(event.notice)
      case 'releasing':
        this.#releasing = event.progress
        return tell(this, 'releasing', event.progress)
      case 'ended':
        return this.#finish(guestEnd(event.end))
    }
  }

  #notice(notice: Notice): void {
    const { kind, page, message } = notice
    const about = page === undefined ? {} : { page }
    this.#remembered.push({ at: new Date().toISOString(), kind, ...about, message })
    if (this.#remembered.length > mostRemembered) this.#remembered.shift()
    if (this.listenerCount('notice') > 0) return tell(this, 'notice', notice)
    if (this.#keptNotices.length < mostKeptNotices) this.#keptNotices.push(notice)
  }

  #finish(end: GuestEnd): void {
    this.#end = end
    this.#surroundings.requests.giveUp(this.#id)
    if (end.error !== undefined && !this.#endIsAwaited && this.listenerCount('end') === 0) {
      warn(`${this.#who} is served no longer: ${end.error.message}`, end.error.code)
    }
    tell(this, 'end', end)
    this.#resolveEnded(end)
  }
}
