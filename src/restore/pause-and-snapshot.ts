import { UffdError } from '../errors.js'
import { FirecrackerError, FirecrackerHttpError } from '../firecracker/errors.js'
import { type GuestEnd } from '../guest/end.js'
import { type Guest } from '../guest/guest.js'
import { type DirtyPages, type PageStates } from '../guest/page-states.js'
import { balloonIfAny } from './balloon.js'
import { endOf } from './end-of.js'
import { endAfterHangUp } from './hang-up.js'
import {
  PauseAndSnapshotError,
  type SnapshotStep,
  type VmAfterSnapshot,
} from './pause-and-snapshot-error.js'
import {
  checkPauseAndSnapshotOptions,
  checkSnapshotTarget,
  type PauseAndSnapshotOptions,
  refuseServedFile,
  type SnapshotTarget,
} from './pause-and-snapshot-options.js'
import { untilQuiet } from './quiet.js'
import { Steps } from './steps.js'

/** A snapshot that was made, and the pages of the guest at that moment. */
export interface SnapshotMade {
  /**
   * The states of all pages when the guest stood still, before Firecracker wrote the snapshot:
   * what the guest itself had needed and given back.
   */
  readonly pageStates: PageStates
  /**
   * Which pages of the new memory file differ from the one the guest is served from, and which
   * are empty. With dirty tracking it is taken after the writing, so that what Firecracker's
   * devices wrote meanwhile is in it; it says of itself whether it is `exact`. Without, it is
   * taken before: a page that was installed counts as dirty, and the writing of a full snapshot
   * installs all.
   */
  readonly dirtyPages: DirtyPages
  /** Whether the microVM runs again; else it is paused. */
  readonly resumed: boolean
}

const defaultSettleMs = 60_000

/** The last command of a host that has no run of hinting going: none yet, or done. */
const noRunOfHinting = 1

/**
 * Pauses a microVM and has Firecracker write a snapshot of it: stops a run of free page hinting,
 * pauses, waits until the handler is quiet, notes the page states, has the snapshot written, and
 * resumes if that is wanted. Free pages that the guest has not reported by then are in the
 * snapshot like any other.
 *
 * For a full snapshot Firecracker reads all guest memory. Pages that were never installed are
 * read through the handler, and are installed afterwards.
 *
 * @throws {PauseAndSnapshotError} that says which step failed and what the microVM does now;
 * {UffdError} ERR_UFFD_PAUSE_AND_SNAPSHOT_BUSY while another call for the same guest is under way.
 */
export async function pauseAndSnapshot(
  vm: SnapshotTarget,
  options: PauseAndSnapshotOptions,
): Promise<SnapshotMade> {
  const target = checkSnapshotTarget(vm)
  const checked = checkPauseAndSnapshotOptions(options)
  await refuseServedFile(target, checked)
  return await alone(target.guest, () => new Making(target, checked).run())
}

const underWay = new WeakSet<Guest>()

/** Two snapshots at once would resume the microVM under each other, and tell wrong pages. */
async function alone<T>(guest: Guest, work: () => Promise<T>): Promise<T> {
  if (underWay.has(guest)) {
    throw new UffdError(
      'ERR_UFFD_PAUSE_AND_SNAPSHOT_BUSY',
      'Another snapshot of this microVM is being made: wait for that one first',
    )
  }
  underWay.add(guest)
  try {
    return await work()
  } finally {
    underWay.delete(guest)
  }
}

class Making {
  readonly #vm: SnapshotTarget
  readonly #options: PauseAndSnapshotOptions
  readonly #steps: Steps<SnapshotStep>
  readonly #onEnd = (end: GuestEnd) => this.#steps.fail(endOf(end))
  #condition: VmAfterSnapshot = 'unchanged'

  constructor(vm: SnapshotTarget, options: PauseAndSnapshotOptions) {
    this.#vm = vm
    this.#options = options
    this.#steps = new Steps('drain', options.signal)
  }

  async run(): Promise<SnapshotMade> {
    const { guest, client } = this.#vm
    guest.on('end', this.#onEnd)
    if (guest.endSoFar !== undefined) this.#onEnd(guest.endSoFar)
    try {
      return await this.#takeSteps()
    } catch (error) {
      await this.#leaveInOrder()
      const { failure } = this.#steps
      if (failure === undefined) throw error
      throw new PauseAndSnapshotError(failure, client.socketPath, this.#condition)
    } finally {
      guest.off('end', this.#onEnd)
      this.#steps.end()
    }
  }

  async #takeSteps(): Promise<SnapshotMade> {
    const { guest } = this.#vm
    const { resume = false } = this.#options
    const steps = this.#steps
    await steps.take('drain', () => this.#stopHinting())
    await steps.take('pause', () => this.#pause())
    await steps.take('settle', () => this.#untilQuiet())
    const before = await steps.take('export', () => guest.exportPages())
    await steps.take('create', () => this.#create())
    const dirtyPages =
      guest.tracking === 'off' ? before.dirtyPages : await steps.take('export', () => this.#after())
    if (resume) await steps.take('resume', () => this.#resume(this.#request))
    return { pageStates: before.pageStates, dirtyPages, resumed: resume }
  }

  get #request() {
    return { signal: this.#steps.signal, timeoutMs: this.#options.timeouts?.requestMs }
  }

  async #stopHinting(): Promise<void> {
    const { client } = this.#vm
    const balloon = await balloonIfAny(client, this.#request)
    if (balloon?.freePageHinting !== true) return
    const { hostCmd } = await client.hintingStatus(this.#request)
    if (hostCmd > noRunOfHinting) await client.stopHinting(this.#request)
  }

  async #pause(): Promise<void> {
    try {
      this.#condition = 'unknown'
      await this.#vm.client.pause(this.#request)
      this.#condition = 'paused'
    } catch (error) {
      if (error instanceof FirecrackerHttpError) this.#condition = 'unchanged'
      throw error
    }
  }

  #untilQuiet(): Promise<void> {
    const { settleMs = defaultSettleMs } = this.#options.timeouts ?? {}
    return untilQuiet(this.#vm, settleMs, this.#request)
  }

  async #create(): Promise<void> {
    const { snapshotState, snapshot, type, timeouts } = this.#options
    await this.#vm.client.createSnapshot(
      { snapshotPath: snapshotState, memFilePath: snapshot, snapshotType: type },
      { signal: this.#steps.signal, timeoutMs: timeouts?.createMs },
    )
  }

  async #after(): Promise<DirtyPages> {
    const { guest } = this.#vm
    await guest.settle({ signal: this.#steps.signal })
    return (await guest.exportPages()).dirtyPages
  }

  async #resume(request: { timeoutMs: number | undefined }): Promise<void> {
    try {
      this.#condition = 'unknown'
      await this.#vm.client.resume(request)
      this.#condition = 'running'
    } catch (error) {
      if (error instanceof FirecrackerHttpError) this.#condition = 'paused'
      throw error
    }
  }

  /** After a failure: runs again if that was wanted and its memory is served; else is looked at. */
  async #leaveInOrder(): Promise<void> {
    const { guest } = this.#vm
    if (guest.endSoFar === undefined) await endAfterHangUp(guest, this.#steps.failure?.cause)
    const { endSoFar } = guest
    if (endSoFar?.reason === 'guest-exited') {
      this.#condition = 'gone'
      return
    }
    const request = { timeoutMs: this.#options.timeouts?.requestMs }
    const resumes = this.#options.resume === true && endSoFar === undefined
    try {
      if (resumes && this.#condition !== 'unchanged') await this.#resume(request)
      else if (this.#condition === 'unknown') await this.#look(request)
    } catch {
      // The first failure is the one that is told, and the condition says the rest.
    }
  }

  /** What came of a request that was given up before its answer; not of one that got none. */
  async #look(request: { timeoutMs: number | undefined }): Promise<void> {
    if (this.#steps.failure?.cause instanceof FirecrackerError) return
    const { state } = await this.#vm.client.instanceInfo(request)
    if (state === 'Paused') this.#condition = 'paused'
    if (state === 'Running') this.#condition = 'running'
  }
}
