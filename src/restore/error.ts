import { UffdError, type UffdErrorCode } from '../errors.js'
import { type Failure } from './steps.js'

/**
 * What a restore does, in order; `load` and `handoff` at the same time. Nothing is started before
 * `listen`, and Firecracker is told nothing before `load`.
 */
export type RestoreStep = keyof typeof codes

/**
 * What a failed restore leaves of the microVM. `untouched`: Firecracker was told nothing, and can
 * be used for another restore. `unusable`: it was told to load the snapshot; end its process,
 * unless it ended by itself, as it does when a load fails. `gone`: its process has ended.
 */
export type VmAfterRestore = 'untouched' | 'unusable' | 'gone'

const codes = {
  template: 'ERR_UFFD_RESTORE_TEMPLATE',
  prefetch: 'ERR_UFFD_RESTORE_PREFETCH',
  version: 'ERR_UFFD_RESTORE_VERSION',
  listen: 'ERR_UFFD_RESTORE_LISTEN',
  load: 'ERR_UFFD_RESTORE_LOAD',
  handoff: 'ERR_UFFD_RESTORE_HANDOFF',
  verify: 'ERR_UFFD_RESTORE_VERIFY',
  resume: 'ERR_UFFD_RESTORE_RESUME',
} as const satisfies Record<string, UffdErrorCode>

const doing: Readonly<Record<RestoreStep, string>> = {
  template: 'its template was read',
  prefetch: 'the trace to prefetch was checked',
  version: 'Firecracker was asked for its version and its state',
  listen: 'the handler started to listen',
  load: 'Firecracker loaded the snapshot',
  handoff: 'the guest memory was handed off',
  verify: 'the restored microVM was compared with what it should be',
  resume: 'the microVM was resumed',
}

const left: Readonly<Record<VmAfterRestore, string>> = {
  untouched: 'Firecracker was told nothing yet.',
  unusable: 'Its microVM cannot be used: end the process of Firecracker.',
  gone: 'The process of Firecracker has ended.',
}

/** A restore failed, and everything it had started was taken down. */
export class RestoreError extends UffdError {
  override readonly name = 'RestoreError'
  /** The step that failed. */
  readonly step: RestoreStep
  /** What is left of the microVM. */
  readonly vm: VmAfterRestore

  /** @internal */
  constructor(
    { step, cause, aborted }: Failure<RestoreStep>,
    apiSocket: string,
    vm: VmAfterRestore,
  ) {
    const how = aborted ? 'was aborted by its signal' : 'failed'
    super(
      aborted ? 'ERR_UFFD_RESTORE_ABORTED' : codes[step],
      `The restore into ${apiSocket} ${how} while ${doing[step]}: ${inWords(cause)}. ${left[vm]}`,
      { cause },
    )
    this.step = step
    this.vm = vm
  }
}

/** A cause as part of a sentence. */
export function inWords(cause: unknown): string {
  return (cause instanceof Error ? cause.message : String(cause)).replace(/\.$/, '')
}
