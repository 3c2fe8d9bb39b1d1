import { StepError, type Telling } from './step-error.js'
import { type Failure } from './steps.js'

/**
 * What a restore does, in order; `load` and `handoff` at the same time. Nothing is started before
 * `listen`, and Firecracker is told nothing before `load`.
 */
export type RestoreStep =
  | 'template'
  | 'prefetch'
  | 'version'
  | 'pool'
  | 'listen'
  | 'load'
  | 'handoff'
  | 'verify'
  | 'resume'

/**
 * What a failed restore leaves of the microVM. `untouched`: Firecracker was told nothing.
 * `unusable`: it was told to load the snapshot; end its process, unless it ended by itself, as it
 * does when a load fails. `gone`: its process has ended.
 */
export type VmAfterRestore = 'untouched' | 'unusable' | 'gone'

const telling: Telling<RestoreStep, VmAfterRestore> = {
  attempt: 'The restore into',
  steps: {
    template: ['ERR_UFFD_RESTORE_TEMPLATE', 'its template was read'],
    prefetch: ['ERR_UFFD_RESTORE_PREFETCH', 'the trace to prefetch was checked'],
    version: ['ERR_UFFD_RESTORE_VERSION', 'Firecracker was asked for its version and its state'],
    pool: ['ERR_UFFD_RESTORE_POOL', 'the pool of huge pages was looked at'],
    listen: ['ERR_UFFD_RESTORE_LISTEN', 'the handler started to listen'],
    load: ['ERR_UFFD_RESTORE_LOAD', 'Firecracker loaded the snapshot'],
    handoff: ['ERR_UFFD_RESTORE_HANDOFF', 'the guest memory was handed off'],
    verify: ['ERR_UFFD_RESTORE_VERIFY', 'the restored microVM was compared with what it should be'],
    resume: ['ERR_UFFD_RESTORE_RESUME', 'the microVM was resumed'],
  },
  aborted: 'ERR_UFFD_RESTORE_ABORTED',
  left: {
    untouched: 'Firecracker was told nothing yet.',
    unusable: 'Its microVM cannot be used: end the process of Firecracker.',
    gone: 'The process of Firecracker has ended.',
  },
}

/** A restore failed, and everything it had started was taken down. */
export class RestoreError extends StepError<RestoreStep, VmAfterRestore> {
  override readonly name = 'RestoreError'

  /** @internal */
  constructor(failure: Failure<RestoreStep>, apiSocket: string, vm: VmAfterRestore) {
    super(telling, failure, apiSocket, vm)
  }
}
