import { stat } from 'node:fs/promises'
import { type PrefaultReport } from '#native'
import { whileAtWork } from '../abort.js'
import { UffdError, type UffdErrorCode } from '../errors.js'
import { type GuestEnd } from '../guest/end.js'
import { type Guest } from '../guest/guest.js'
import { hugePageSize, promise, type PromisedPages, release, requireRoom } from '../huge-pool.js'
import { listenAsChecked } from '../server/listen.js'
import { checkListenOptions, listenShape, type ListenOptions } from '../server/options.js'
import { type Checked } from '../validate.js'
import { type Server } from '../server/server.js'
import { traceFor } from '../trace/for-snapshot.js'
import { type Trace } from '../trace/trace.js'
import { endOf } from './end-of.js'
import { requireFresh } from './fresh.js'
import { endAfterHangUp } from './hang-up.js'
import { type CheckedRestore } from './options.js'
import { RestoreError, type RestoreStep, type VmAfterRestore } from './restore-error.js'
import { RestoredVm } from './restored-vm.js'
import { Steps } from './steps.js'
import { verify } from './verify.js'
import { requireWanted, type Wanted, whatIsWanted } from './wanted.js'

const defaultHandoffMs = 30_000

/**
 * Refused handoffs that say nothing of Firecracker's: those given up by closing the server, and
 * connections that were closed, as by whoever looks whether this socket is in use. If it was
 * Firecracker that hung up, the load fails.
 */
const harmless: ReadonlySet<UffdErrorCode> = new Set([
  'ERR_UFFD_HANDOFF_CANCELLED',
  'ERR_UFFD_HANDOFF_CLOSED',
])

/** One restore: what it has started so far, and how that is taken down again. */
export class Attempt {
  readonly #checked: CheckedRestore
  readonly #steps: Steps<RestoreStep>
  readonly #prefetching = new AbortController()
  readonly #onEnd = (end: GuestEnd) => this.#steps.fail(endOf(end))
  readonly #onRefused = (error: UffdError) => this.#refuse(error)
  #server: Server | undefined
  #guest: Guest | undefined
  #prefetched: Promise<PrefaultReport> | undefined
  #kept: PromisedPages | undefined
  #loadSent = false
  #handedOff = 0

  constructor(checked: CheckedRestore) {
    this.#checked = checked
    this.#steps = new Steps('template', checked.options.signal)
  }

  async run(): Promise<RestoredVm> {
    try {
      return await this.#takeSteps()
    } catch (error) {
      const vm = await this.#takeDown()
      const { failure } = this.#steps
      if (failure === undefined) throw error
      throw new RestoreError(failure, this.#checked.client.socketPath, vm)
    } finally {
      this.#steps.end()
    }
  }

  async #takeSteps(): Promise<RestoredVm> {
    const { client, backendPath, options } = this.#checked
    const { resume = true } = options
    const steps = this.#steps
    const wanted = await steps.take('template', () => whatIsWanted(options, backendPath))
    const trace = await steps.take('prefetch', () => traceFor(options.prefetch, wanted.snapshot))
    const version = await steps.take('version', async () => {
      const answer = await client.version(this.#request)
      requireWanted(answer, wanted)
      await requireFresh(client, this.#request)
      return answer
    })
    await steps.take('pool', () => this.#keepHugePages(wanted))
    const expectHugePages = this.#hugePages(wanted) ?? trace?.pageSize === hugePageSize
    const server = await steps.take('listen', (signal) =>
      this.#listen(wanted, expectHugePages, signal),
    )
    const guest = await this.#load(server, wanted, trace)
    const found = await steps.take('verify', () => verify(client, wanted, this.#request))
    if (resume === true) {
      await steps.take('prefetch', (signal) => this.#prefetchFirst(signal))
      await steps.take('resume', () => client.resume(this.#request))
    }
    guest.off('end', this.#onEnd)
    return new RestoredVm({
      guest,
      server,
      client,
      version,
      ...found,
      resumed: resume !== false,
      prefetched: this.#prefetched,
      release: () => this.#release(),
    })
  }

  /**
   * Whether the guest's pages are of 2 MiB, if anybody has said; otherwise it is seen when it has
   * come. A trace tells what pages another run had, and not which ones this load makes.
   */
  #hugePages({ template }: Wanted): boolean | undefined {
    const { hugePages = 'Snapshot' } = this.#checked.options
    const said = hugePages === 'Snapshot' ? template?.hugePages : hugePages
    return said === undefined ? undefined : said === '2M'
  }

  get #requiresHugePages(): boolean {
    return this.#checked.options.requireHugePages ?? true
  }

  /** Pages that Firecracker maps are only taken from the pool when the guest needs them. */
  async #keepHugePages(wanted: Wanted): Promise<void> {
    if (!this.#requiresHugePages || this.#hugePages(wanted) !== true) return
    this.#kept = await promise((await stat(wanted.snapshot)).size)
  }

  get #request() {
    const { requestMs } = this.#checked.options.timeouts ?? {}
    return { signal: this.#steps.signal, timeoutMs: requestMs }
  }

  async #listen(
    { snapshot }: Wanted,
    expectHugePages: boolean,
    ending: AbortSignal,
  ): Promise<Server> {
    const { options, socket } = this.#checked
    // The caller's signal ends the attempt, and that ends the server. The prefetch is a step here.
    const {
      signal: _,
      prefetch: __,
      prefetchMode: ___,
      ...more
    } = Object.fromEntries(
      Object.entries(options).filter(([name]) => Object.hasOwn(listenShape, name)),
    ) as Partial<Checked<ListenOptions>>
    const checked = checkListenOptions({ ...more, snapshot, socket })
    // Whoever was left in the directory is nobody's guest here, and would wait for this one's end.
    const native = { ...checked.native, stateDirAlone: true, expectHugePages }
    this.#server = await whileAtWork(
      ending,
      async (signal) => await listenAsChecked({ ...checked, native, signal }),
    )
    this.#server.on('refused', this.#onRefused)
    return this.#server
  }

  /** Firecracker answers the load after the handoff, so both are waited for at once. */
  async #load(server: Server, { load }: Wanted, trace: Trace | undefined): Promise<Guest> {
    const { client, options } = this.#checked
    const { loadMs, handoffMs = defaultHandoffMs } = options.timeouts ?? {}
    const handoff = this.#steps.take('handoff', async (signal) => {
      const guest = await server.accept({ signal, timeoutMs: handoffMs })
      await this.#take(guest, trace)
      return guest
    })
    const loaded = this.#steps.take('load', async (signal) => {
      this.#loadSent = true
      await client.loadSnapshot(load, { signal, timeoutMs: loadMs })
    })
    // Both have ended before anything is taken down.
    const [came] = await Promise.allSettled([handoff, loaded])
    if (this.#steps.failure !== undefined) throw this.#steps.failure.cause
    return (came as PromiseFulfilledResult<Guest>).value
  }

  async #take(guest: Guest, trace: Trace | undefined): Promise<void> {
    this.#guest = guest
    this.#handedOff = performance.now()
    // From now on it counts itself.
    release(this.#kept)
    guest.on('end', this.#onEnd)
    // It may have ended before anybody listened.
    if (guest.endSoFar !== undefined) this.#onEnd(guest.endSoFar)
    if (this.#requiresHugePages && this.#kept === undefined && guest.pageSize === hugePageSize) {
      await this.#steps.take('pool', async () => await requireRoom(guest))
    }
    if (trace !== undefined) {
      await this.#steps.take('prefetch', async () => this.#prefetch(guest, trace))
    }
    // One microVM: nobody else is let in.
    await this.#server?.close()
  }

  #prefetch(guest: Guest, trace: Trace): void {
    this.#prefetched = guest.prefault(trace, { signal: this.#prefetching.signal })
    // Pages that could not be had are in the report; the guest's end is told by the guest.
    this.#prefetched.catch((error: unknown) => {
      const ended = error instanceof UffdError && error.code === 'ERR_UFFD_GUEST_ENDED'
      if (!ended) this.#steps.fail(error, 'prefetch')
    })
  }

  /** Leaves the guest paused for as long as its pages are to come first. */
  async #prefetchFirst(ending: AbortSignal): Promise<void> {
    const { prefetchFirstMs } = this.#checked.options
    const prefetched = this.#prefetched
    if (prefetchFirstMs === undefined || prefetched === undefined) return
    const left = this.#handedOff + prefetchFirstMs - performance.now()
    await new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, left)
      const go = () => {
        clearTimeout(timer)
        resolve()
      }
      prefetched.then(go, go)
      ending.addEventListener('abort', go, { once: true })
    })
  }

  #refuse(error: UffdError): void {
    if (!harmless.has(error.code)) this.#steps.fail(error, 'handoff')
  }

  #release(): void {
    this.#prefetching.abort()
    if (this.#checked.ownsClient) this.#checked.client.close()
  }

  /**
   * The prefetch is cancelled; the socket is closed, so that no handoff slips in; the VM is killed
   * if that is wanted, before its session ends: a VMM that keeps no copy of its userfaultfd would
   * read zeros from then on; then the session is stopped.
   */
  async #takeDown(): Promise<VmAfterRestore> {
    this.#release()
    release(this.#kept)
    const { killOnFailure = false } = this.#checked.options
    await this.#server?.close()
    const guests = new Set(this.#server?.guests)
    if (this.#guest !== undefined) guests.add(this.#guest)
    let isGone = false
    for (const guest of guests) {
      const killed = killOnFailure && guest.kill()
      if (!killed) await endAfterHangUp(guest, this.#steps.failure?.cause)
      const { reason } = await guest.stop()
      const killedByItsSession = killOnFailure && reason === 'failed' && guest.pid !== undefined
      isGone ||= killed || killedByItsSession || reason === 'guest-exited'
    }
    if (isGone) return 'gone'
    return this.#loadSent ? 'unusable' : 'untouched'
  }
}
