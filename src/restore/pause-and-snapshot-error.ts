import { StepError, type Telling } from './step-error.js'
import { type Failure } from './steps.js'

/** What `pauseAndSnapshot` does, in order. */
export type SnapshotStep = 'drain' | 'pause' | 'settle' | 'export' | 'create' | 'resume'

/**
 * What a failed `pauseAndSnapshot` leaves. `unchanged`: the microVM was not paused by it.
 * `paused`; `running`: it runs, as before or again. `unknown`: Firecracker did not answer; look at
 * `client.instanceInfo()`. `gone`: its process has ended.
 */
export type VmAfterSnapshot = 'unchanged' | 'paused' | 'running' | 'unknown' | 'gone'

const telling: Telling<SnapshotStep, VmAfterSnapshot> = {
  attempt: 'The snapshot of the microVM of',
  steps: {
    drain: ['ERR_UFFD_PAUSE_AND_SNAPSHOT_DRAIN', 'free page hinting was stopped'],
    pause: ['ERR_UFFD_PAUSE_AND_SNAPSHOT_PAUSE', 'the microVM was paused'],
    settle: ['ERR_UFFD_PAUSE_AND_SNAPSHOT_SETTLE', 'the handler settled'],
    export: ['ERR_UFFD_PAUSE_AND_SNAPSHOT_EXPORT', 'the page states were read'],
    create: ['ERR_UFFD_PAUSE_AND_SNAPSHOT_CREATE', 'Firecracker wrote the snapshot'],
    resume: [
      'ERR_UFFD_PAUSE_AND_SNAPSHOT_RESUME',
      'the microVM was resumed; the snapshot is written',
    ],
  },
  aborted: 'ERR_UFFD_PAUSE_AND_SNAPSHOT_ABORTED',
  left: {
    unchanged: 'It was not paused.',
    paused: 'It is paused.',
    running: 'It runs.',
    unknown: 'Whether it runs is not known.',
    gone: 'Its process has ended.',
  },
}

/** A snapshot could not be made. */
export class PauseAndSnapshotError extends StepError<SnapshotStep, VmAfterSnapshot> {
  override readonly name = 'PauseAndSnapshotError'

  /** @internal */
  constructor(failure: Failure<SnapshotStep>, apiSocket: string, vm: VmAfterSnapshot) {
    super(telling, failure, apiSocket, vm)
  }
}
