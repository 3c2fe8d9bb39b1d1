import { UffdError, type UffdErrorCode } from '../errors.js'
import { inWords } from './error.js'
import { type Failure } from './steps.js'

/** What `pauseAndSnapshot` does, in order. */
export type SnapshotStep = keyof typeof codes

/**
 * What a failed `pauseAndSnapshot` leaves. `unchanged`: the microVM was not paused by it.
 * `paused`; `running`: it was paused, and resumed again. `unknown`: Firecracker did not answer;
 * look at `client.instanceInfo()`. `gone`: its process has ended.
 */
export type VmAfterSnapshot = 'unchanged' | 'paused' | 'running' | 'unknown' | 'gone'

const codes = {
  drain: 'ERR_UFFD_PAUSE_AND_SNAPSHOT_DRAIN',
  pause: 'ERR_UFFD_PAUSE_AND_SNAPSHOT_PAUSE',
  settle: 'ERR_UFFD_PAUSE_AND_SNAPSHOT_SETTLE',
  export: 'ERR_UFFD_PAUSE_AND_SNAPSHOT_EXPORT',
  create: 'ERR_UFFD_PAUSE_AND_SNAPSHOT_CREATE',
  resume: 'ERR_UFFD_PAUSE_AND_SNAPSHOT_RESUME',
} as const satisfies Record<string, UffdErrorCode>

const doing: Readonly<Record<SnapshotStep, string>> = {
  drain: 'free page hinting was stopped',
  pause: 'the microVM was paused',
  settle: 'the handler settled',
  export: 'the page states were read',
  create: 'Firecracker wrote the snapshot',
  resume: 'the microVM was resumed; the snapshot is written',
}

const left: Readonly<Record<VmAfterSnapshot, string>> = {
  unchanged: 'It was not paused.',
  paused: 'It is paused.',
  running: 'It runs again.',
  unknown: 'Whether it runs is not known.',
  gone: 'Its process has ended.',
}

/** A snapshot could not be made. */
export class PauseAndSnapshotError extends UffdError {
  override readonly name = 'PauseAndSnapshotError'
  /** The step that failed. */
  readonly step: SnapshotStep
  /** What the microVM does now. */
  readonly vm: VmAfterSnapshot

  /** @internal */
  constructor(
    { step, cause, aborted }: Failure<SnapshotStep>,
    apiSocket: string,
    vm: VmAfterSnapshot,
  ) {
    const how = aborted ? 'was aborted by its signal' : 'failed'
    super(
      aborted ? 'ERR_UFFD_PAUSE_AND_SNAPSHOT_ABORTED' : codes[step],
      `The snapshot of the microVM of ${apiSocket} ${how} while ${doing[step]}: ` +
        `${inWords(cause)}. ${left[vm]}`,
      { cause },
    )
    this.step = step
    this.vm = vm
  }
}
