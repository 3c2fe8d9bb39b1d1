import { EventEmitter } from 'node:events'
import native, { type ErrorInfo, type NativeEvent, type NativeServer } from '#native'
import { aborted } from '../abort.js'
import { type ControlEndpoint } from '../control/endpoint.js'
import { type Controlled, serveControl } from '../control/serve.js'
import { UffdError } from '../errors.js'
import { type GuestEnd } from '../guest/end.js'
import { Guest, internals, type Prefetch } from '../guest/guest.js'
import { Requests } from '../guest/requests.js'
import { type HttpEndpoint } from '../http/endpoint.js'
import { serveHttp, type HttpOptions } from '../http/serve.js'
import { promiseNoMore, promiseTo } from '../huge-pool.js'
import { KeepAlive } from '../keep-alive.js'
import { calling, fromNative } from '../native-errors.js'
import { namingCaller } from '../stack.js'
import { callBack, tell } from '../tell.js'
import { type Trace } from '../trace/trace.js'
import {
  abortSignal,
  argument,
  type Check,
  milliseconds,
  object,
  optional,
  options,
} from '../validate.js'
import { warn } from '../warn.js'
import { Arrivals } from './arrivals.js'
import { leaveNothingAtExit, nothingToLeave } from './at-exit.js'
import { Guarding, type GuardianEvents, type GuardianState } from './guardian.js'
import { type About, type EndedGuest } from './inspected.js'
import { Left, type NotRecovered } from './left.js'
import { type CheckedOptions } from './options.js'
import { systemdState, takeEnvironment, type SystemdState } from './systemd.js'

/** What a server tells; the values are the arguments of the listeners. */
export interface ServerEvents extends GuardianEvents {
  /**
   * A guest was refused, and why. The second argument counts refusals before this one that are
   * not told because JavaScript was busy for too long: normally 0. With no listener, a refusal
   * becomes a warning of the process.
   */
  refused: [error: UffdError, unseen: number]
  /**
   * A connection could not be accepted, and the server goes on trying; or the service manager cannot
   * be told anything, or has told what cannot be (`ERR_UFFD_SERVICE_MANAGER…`). With no listener, a
   * warning. A socket that broke for good is told here too if nobody listens to `error`.
   */
  trouble: [error: UffdError]
  /**
   * A guest was taken over that another process had left in the state directory. That happens
   * before `listen` resolves, so it is kept for the first listener.
   */
  recovered: [guest: Guest]
  /**
   * A guest that was left is not taken over, and why; kept for the first listener. If nobody
   * listens or reads `notRecovered`, it becomes a warning of the process.
   */
  notRecovered: [left: NotRecovered]
  /** The socket broke for good: no guest comes any more, and those that are here are served on. */
  error: [error: UffdError]
  /** The server accepts no more, and its socket is gone. */
  close: []
}

/** How to wait for a guest. */
export interface AcceptOptions {
  /**
   * How long to wait, in milliseconds, or `Infinity`.
   * @default 60_000
   */
  readonly timeoutMs?: number | undefined
  /** Gives up the wait when it fires. */
  readonly signal?: AbortSignal | undefined
}

const defaultAcceptTimeoutMs = 60_000

/** Guests that have ended, of which is remembered how. */
const mostRemembered = 32

const patience: Check<number> = (value, at) =>
  value === Infinity ? Infinity : milliseconds(value, at)

const checkAcceptOptions = object<AcceptOptions>({
  timeoutMs: optional(patience),
  signal: optional(abortSignal),
})

/**
 * One socket and one snapshot, and a guest for every VM that connects. It keeps the process
 * alive while it listens or serves, unless it was `unref()`ed.
 */
export class Server extends EventEmitter<ServerEvents> implements AsyncDisposable {
  readonly #native: NativeServer
  readonly #options: CheckedOptions
  readonly #prefetch: Prefetch | undefined
  readonly #keepAlive = new KeepAlive()
  readonly #requests = new Requests()
  readonly #arrivals = new Arrivals()
  readonly #guests = new Map<number, Guest>()
  readonly #left = new Left(this)
  readonly #guarding = new Guarding(this)
  /** What went wrong with the service manager before anybody could listen. */
  readonly #early: UffdError[] = []
  readonly #listening = deferred<void>()
  readonly #closed = deferred<void>()
  readonly #gone = deferred<void>()
  readonly #endpoints: Promise<HttpEndpoint>[] = []
  readonly #places = new Set<ControlEndpoint | HttpEndpoint>()
  readonly #ended: EndedGuest[] = []
  readonly #since = performance.now()
  #isEnding = false
  readonly #onAbort = () => void (this.#isHad ? this.stop() : this.#giveUp())
  #hasListened = false
  #isHad = false
  #handedOver = 0
  /** Settled when it is known whether the guardian is ready for its guests. */
  #asking: Deferred | undefined
  /** The hand-over that was begun; settled when somebody has the guests. */
  #leaving: Deferred | undefined
  #hasLeft = false
  #lastRefusal: UffdError | undefined
  #refusals = 0
  #state: 'open' | 'closing' | 'closed' = 'open'
  #referenced = true
  #holding = false

  /** Servers come from `listen`. */
  constructor(checked: CheckedOptions, prefetch: Trace | undefined) {
    super()
    if (checked?.native === undefined)
      argument('checked').fail('A Server comes from listen', checked)
    this.#options = checked
    this.#prefetch = prefetch && { trace: prefetch, mode: checked.prefetchMode }
    const { native: given, systemd } = checked
    const nativeOptions = systemd ? { ...given, systemd: takeEnvironment() } : given
    this.#native = calling(() => new native.NativeServer(nativeOptions, () => this.#collect()))
    leaveNothingAtExit(this.#native)
    this.#hold()
    checked.signal?.addEventListener('abort', this.#onAbort, { once: true })
  }

  /** The socket's path: absolute, unless it would be too long for a socket then. */
  get socket(): string {
    return this.#options.native.socket
  }

  /** The snapshot's absolute path. */
  get snapshot(): string {
    return this.#options.native.snapshot
  }

  /** The guests that are being served now, accepted or not. */
  get guests(): readonly Guest[] {
    return [...this.#guests.values()]
  }

  /**
   * The guests that another process had left in the state directory, all of them once `listen`
   * resolves. They come through `accept` and iteration as well, before all others.
   */
  get recovered(): readonly Guest[] {
    return this.#left.recovered
  }

  /**
   * The guests in the state directory that were not taken over, and why, all of them once
   * `listen` resolves. Nothing of them was changed: whoever can serve them may still do so.
   */
  get notRecovered(): readonly NotRecovered[] {
    return this.#left.notRecovered
  }

  /** Ledgers of guests that had ended: their files, which are gone now. */
  get swept(): readonly string[] {
    return this.#left.swept
  }

  /** What is known of the guardian; `undefined` where guests have none. */
  get guardian(): GuardianState | undefined {
    return this.#options.native.guardian === undefined ? undefined : this.#guarding.state
  }

  /** What is known of the service manager; `undefined` without `systemd`, or where there is none. */
  get systemd(): SystemdState | undefined {
    return systemdState(this.#native)
  }

  /**
   * The next guest. Every guest is served from its handoff on, whether or not it was accepted,
   * and is given to one caller. Of those that end before anybody asks, the last 64 are kept.
   *
   * @throws {UffdError} ERR_UFFD_ACCEPT_TIMEOUT, ERR_UFFD_ABORTED, or ERR_UFFD_SERVER_CLOSED.
   */
  async accept(acceptOptions: AcceptOptions = {}): Promise<Guest> {
    const checked = checkAcceptOptions(acceptOptions, options())
    const { timeoutMs = defaultAcceptTimeoutMs, signal } = checked
    const what = `Waiting for a guest on ${this.socket}`
    if (signal?.aborted) throw aborted(what, signal)
    const refusalsBefore = this.#refusals
    const { guest, cancel } = this.#arrivals.next()
    const onAbort = () => cancel(aborted(what, signal!))
    const onTimeout = () => cancel(this.#acceptTimeout(timeoutMs, refusalsBefore))
    // The server keeps the process alive, not the wait for it.
    const timer = timeoutMs === Infinity ? undefined : setTimeout(onTimeout, timeoutMs).unref()
    signal?.addEventListener('abort', onAbort, { once: true })
    try {
      const next = await namingCaller(guest)
      if (next === undefined) throw closedError(this.socket)
      return next
    } finally {
      clearTimeout(timer)
      signal?.removeEventListener('abort', onAbort)
    }
  }

  /** Each guest, as it comes, until the server is closed. Leaving the loop closes nothing. */
  async *[Symbol.asyncIterator](): AsyncGenerator<Guest, void, void> {
    for (;;) {
      const guest = await this.#arrivals.next().guest
      if (guest === undefined) return
      yield guest
    }
  }

  /**
   * Accepts no more guests and removes the socket; resolves when that is done. Guests go on
   * being served, and keep the process alive. May be called again.
   */
  async close(): Promise<void> {
    if (this.#state === 'open') {
      this.#state = 'closing'
      this.#native.close()
    }
    await this.#keepAlive.during(this.#closed.promise)
  }

  /** Closes the server and stops its guests; resolves when all of them have ended. */
  async stop(): Promise<void> {
    this.#leavePlaces()
    await this.close()
    await Promise.all(this.guests.map((guest) => guest.stop()))
    await this.gone()
    await this.#closeEndpoints()
  }

  /**
   * Serves figures over HTTP at `HOST:PORT` (a `PORT` alone is one of 127.0.0.1, and 0 any that is
   * free) or `unix:PATH`: a live page, `/metrics` for Prometheus, `/guests` as JSON. It changes
   * nothing, asks no guest and slows no fault, keeps no process alive, and ends with `stop` or
   * `handOver`.
   *
   * @throws {UffdError} ERR_UFFD_HTTP if it cannot listen there, ERR_UFFD_SERVER_CLOSED if the server
   * ends or has ended.
   */
  async http(at: string, httpOptions: HttpOptions = {}): Promise<HttpEndpoint> {
    if (this.#isEnding) throw closedError(this.socket)
    const endpoint = serveHttp(this, at, httpOptions)
    this.#endpoints.push(endpoint)
    this.#places.add(await endpoint)
    return await endpoint
  }

  /**
   * Lets this user and root look into the server at a Unix socket, and stop it: what
   * `uffd-rs-serve status`, `dump` and `stop` ask. Its mode is 0600, and who connects is asked of
   * the kernel. It slows no fault, keeps no process alive, and is gone as soon as `stop` or
   * `handOver` begins. Told to stop, the server does as {@link stop} or {@link handOver} do.
   *
   * @param at The socket's path, at most 107 bytes. The command looks for it at the path of the
   * server's socket and `.control`.
   * @throws {UffdError} ERR_UFFD_CONTROL if it cannot listen there, ERR_UFFD_SERVER_CLOSED if the
   * server ends or has ended.
   */
  async control(at: string | URL): Promise<ControlEndpoint> {
    const stop = (leavesGuests: boolean) => {
      // Whatever is in the way of a hand-over, it has ended nothing.
      if (leavesGuests) this.handOver().catch((error: UffdError) => this.#trouble(error, false))
      else void this.stop()
    }
    return await this.controlBy(at, { stop, endsProcess: false })
  }

  /** @internal The same where something else has to be done for a stop. */
  async controlBy(at: string | URL, controlled: Controlled): Promise<ControlEndpoint> {
    if (this.#isEnding) throw closedError(this.socket)
    const endpoint = await serveControl(this, at, controlled)
    this.#places.add(endpoint)
    if (!this.#isEnding) return endpoint
    await endpoint.close()
    throw closedError(this.socket)
  }

  /** @internal What is known of it that is not public, for whoever may look into it. */
  about(): About {
    return {
      isOpen: this.#state === 'open' && this.#hasListened,
      uptimeMs: performance.now() - this.#since,
      stateDir: this.#options.native.stateDir,
      options: this.#options.native,
      refusals: this.#refusals,
      lastRefusal: this.#lastRefusal,
      ended: [...this.#ended],
    }
  }

  /** @internal The values of all metrics, in the order of the table. */
  figures(): Float64Array {
    return this.#native.figures()
  }

  /**
   * Closes the server and leaves its guests in the state directory, to whoever serves it next:
   * each ends as `handed-over`, and is served by the guardian until then, or without one waits at
   * the next page it misses. Resolves with how many were left, once the next server can have them;
   * may be called again.
   *
   * With a guardian it is found out first whether that one gets on; one that was lost is replaced.
   * Where it is frozen, or there is none, the server goes on as before.
   *
   * @throws {UffdError} ERR_UFFD_NO_STATE_DIR if the server has no state directory.
   * ERR_UFFD_GUARDIAN_SILENT or ERR_UFFD_GUARDIAN if the guardian is not ready for its guests: they are
   * served here, and it may be tried again. ERR_UFFD_HAND_OVER if they were left, and nobody has them.
   */
  async handOver(): Promise<number> {
    this.requireStateDir()
    if (this.#options.native.guardian !== undefined) await this.#guardianIsReady()
    this.#leavePlaces()
    await this.#leave()
    await this.#closeEndpoints()
    return this.#handedOver
  }

  /** The same as {@link stop}: nothing is left behind. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop()
  }

  /** Lets the process end although the server listens or one of its guests is being served. */
  unref(): this {
    this.#referenced = false
    this.#hold()
    return this
  }

  /** Takes back {@link unref}. */
  ref(): this {
    this.#referenced = true
    this.#hold()
    return this
  }

  /** @internal Has the service manager told that the service ends. */
  serviceStops(): void {
    this.#native.serviceStops()
  }

  /** @internal Refuses what takes a state directory. */
  requireStateDir(): void {
    if (this.#options.native.stateDir !== undefined) return
    throw new UffdError(
      'ERR_UFFD_NO_STATE_DIR',
      `The server on ${this.socket} keeps no guests: give \`stateDir\` to hand them over`,
    )
  }

  /** @internal Whoever asked for it is about to have it: from now on its signal stops guests too. */
  isHad(): void {
    this.#isHad = true
  }

  /** @internal Resolves when the socket accepts. */
  async listening(): Promise<void> {
    await this.#keepAlive.during(this.#listening.promise)
  }

  /** @internal Resolves when it is closed, its guests have ended, and the next may have its place. */
  async gone(): Promise<void> {
    await this.#keepAlive.during(this.#gone.promise)
  }

  /** Nobody has got this server: guests that it takes over are left again. */
  async #giveUp(): Promise<void> {
    await this.#leave().catch((error: UffdError) => this.#trouble(error, false))
  }

  async #guardianIsReady(): Promise<void> {
    if (this.#asking === undefined && this.#native.askGuardian()) this.#asking = deferred<void>()
    if (this.#asking !== undefined) await this.#keepAlive.during(this.#asking.promise)
  }

  /** Leaves guests, until somebody has them. */
  async #leave(): Promise<void> {
    if (this.#leaving === undefined && this.#native.handOver()) this.#leaving = deferred<void>()
    const left = this.#leaving && this.#keepAlive.during(this.#leaving.promise)
    await Promise.all([this.close(), this.gone(), left])
  }

  /** The next server may want their places, from the moment on that it has the guests. */
  #leavePlaces(): void {
    this.#isEnding = true
    for (const endpoint of this.#places) void endpoint.close()
  }

  async #closeEndpoints(): Promise<void> {
    const opened = await Promise.allSettled(this.#endpoints)
    const open = opened.flatMap((one) => (one.status === 'fulfilled' ? [one.value] : []))
    await Promise.all(open.map((endpoint) => endpoint.close()))
  }

  #collect(): void {
    for (const event of this.#native.collect()) this.#take(event)
    this.#hold()
    const leaves = this.#leaving !== undefined && !this.#hasLeft
    if (this.#state === 'closed' && this.#guests.size === 0 && !leaves) this.#gone.resolve()
  }

  #take(event: NativeEvent): void {
    switch (event.type) {
      case 'listening':
        this.#hasListened = true
        this.#left.complete()
        setImmediate(() => this.#tellEarly((error) => this.#trouble(error, false)))
        return this.#listening.resolve()
      case 'listenFailed':
        this.#tellEarly(({ message, code }) => warn(message, code))
        return this.#listening.reject(fromNative(event.error))
      case 'closed':
        return this.#finish()
      case 'guardianAsked':
        settle(this.#asking, event.error)
        this.#asking = undefined
        return
      case 'handedOver':
        this.#hasLeft = true
        return settle(this.#leaving, event.error)
      case 'arrived': {
        const { recovered } = event
        const prefetch = recovered ? undefined : this.#prefetch
        const guest = new Guest(event.guest, this.#surroundings(), { recovered, prefetch })
        if (recovered) this.#left.takenOver(guest)
        return this.#arrive(guest, event.guest.id)
      }
      case 'stateDirOnDisk':
        return warn(
          `The state directory ${this.#options.native.stateDir} is on a disk, to which every fault ` +
            `writes: put it on a tmpfs, such as one in /run`,
          'ERR_UFFD_STATE_DIR',
        )
      case 'waiting':
        return callBack('onWaiting', this.#options.onWaiting, event.guests)
      case 'notRecovered':
        if (event.swept) return this.#left.ended(event.path)
        return this.#left.leftAlone(event.path, fromNative(event.error))
      case 'guardianMet':
      case 'guardianTroubled':
      case 'guarded':
      case 'unguarded':
        return this.#guarding.take(event)
      case 'serviceManagerTroubled': {
        const error = fromNative(event.error)
        if (this.#hasListened) return this.#trouble(error, false)
        this.#early.push(error)
        return
      }
      case 'refused':
        return this.#refuse(fromNative(event.error), event.unseen)
      case 'troubled':
        return this.#trouble(fromNative(event.error), event.forGood)
      case 'stats':
      case 'trace':
      case 'notice':
      case 'releasing':
      case 'ended': {
        const guest = this.#guests.get(event.guest)
        if (event.type === 'ended') {
          this.#guests.delete(event.guest)
          if (guest !== undefined) promiseNoMore(guest)
          if (event.end.reason === 'handed-over') this.#handedOver++
          if (guest !== undefined) this.#guarding.forget(guest.id)
        }
        if (guest !== undefined) internals.get(guest)?.(event)
        if (guest?.endSoFar !== undefined) this.#remember(guest, guest.endSoFar)
        return
      }
      default:
        return this.#requests.answer(event)
    }
  }

  #remember({ id, pid }: Guest, { reason, error }: GuestEnd): void {
    const { code, message } = error ?? {}
    this.#ended.push({ id, pid, at: new Date().toISOString(), reason, code, message })
    if (this.#ended.length > mostRemembered) this.#ended.shift()
  }

  #surroundings() {
    return {
      requests: this.#requests,
      keepAlive: this.#keepAlive,
      statsIntervalMs: this.#options.statsIntervalMs,
      tags: this.#options.tags,
      snapshot: this.snapshot,
    }
  }

  #arrive(guest: Guest, id: number): void {
    this.#guests.set(id, guest)
    promiseTo(guest, this.socket)
    this.#arrivals.add(guest)
  }

  #refuse(error: UffdError, unseen: number): void {
    this.#refusals += 1 + unseen
    this.#lastRefusal = error
    if (this.listenerCount('refused') > 0) return tell(this, 'refused', error, unseen)
    // Handoffs under way are given up by closing; that is no news.
    if (error.code === 'ERR_UFFD_HANDOFF_CANCELLED') return
    warn(`A guest was refused on ${this.socket}: ${error.message}`, error.code)
  }

  #trouble(error: UffdError, forGood: boolean): void {
    if (forGood) this.#arrivals.end(error)
    // Nobody has to listen: an unheard `error` would end the process that guests depend on.
    const event = forGood && this.listenerCount('error') > 0 ? 'error' : 'trouble'
    if (this.listenerCount(event) > 0) tell(this, event, error)
    else warn(error.message, error.code)
  }

  #tellEarly(how: (error: UffdError) => void): void {
    for (const error of this.#early.splice(0)) how(error)
  }

  #finish(): void {
    if (this.#state === 'closed') return
    this.#state = 'closed'
    nothingToLeave(this.#native)
    this.#options.signal?.removeEventListener('abort', this.#onAbort)
    this.#listening.reject(closedError(this.socket))
    this.#arrivals.end()
    tell(this, 'close')
    this.#closed.resolve()
  }

  #acceptTimeout(timeoutMs: number, refusalsBefore: number): UffdError {
    const refused = this.#refusals - refusalsBefore
    const cause = refused > 0 ? this.#lastRefusal : undefined
    const why =
      cause === undefined ? '' : `; ${refused} refused, the last because: ${cause.message}`
    return new UffdError(
      'ERR_UFFD_ACCEPT_TIMEOUT',
      `No guest came to ${this.socket} within ${timeoutMs} ms${why}`,
      cause && { cause },
    )
  }

  /** Keeps the process alive if that is wanted and there is something to do. */
  #hold(): void {
    const wanted = this.#referenced && (this.#state !== 'closed' || this.#guests.size > 0)
    if (wanted === this.#holding) return
    this.#holding = wanted
    if (wanted) this.#keepAlive.hold()
    else this.#keepAlive.release()
  }
}

function closedError(socket: string): UffdError {
  return new UffdError('ERR_UFFD_SERVER_CLOSED', `The server on ${socket} was closed`)
}

type Deferred = ReturnType<typeof deferred<void>>

function settle(waiting: Deferred | undefined, error: ErrorInfo | undefined): void {
  if (error === undefined) waiting?.resolve()
  else waiting?.reject(fromNative(error))
}

function deferred<T>() {
  let resolve: (value: T) => void
  let reject: (error: UffdError) => void
  const promise = new Promise<T>((onResolve, onReject) => {
    resolve = onResolve
    reject = onReject
  })
  // Whoever awaits it is told; nobody has to.
  promise.catch(() => {})
  return { promise, resolve: resolve!, reject: reject! }
}
