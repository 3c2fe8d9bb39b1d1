import { type EventEmitter } from 'node:events'
import native, { type NativeEvent, type NativeGuardianOptions } from '#native'
import { UffdError } from '../errors.js'
import { fromNative } from '../native-errors.js'
import { type Place } from '../place.js'
import { tell } from '../tell.js'
import { type Check, type Checked, localFile, object, optional } from '../validate.js'
import { warn } from '../warn.js'

/** How the guardian is started. */
export interface GuardianOptions {
  /**
   * Its program.
   * @default the one that was installed with this package
   */
  readonly path?: string | URL | undefined
  /**
   * A cgroup (v2) for it, made if need be: its folder, such as `/sys/fs/cgroup/uffd-rs`. Without
   * one it is in the cgroup of the server, and a service manager that ends that ends it too.
   * @default the server's
   */
  readonly cgroup?: string | URL | undefined
  /**
   * A file to which it appends a line for each guest that it serves or gives back.
   * @default none
   */
  readonly log?: string | URL | undefined
}

/** What is known of the guardian. */
export interface GuardianState {
  /** Its process, or `undefined` while there is none: it is started again. */
  readonly pid: number | undefined
  /** The ids of the guests that it would serve at once, as far as it has answered. */
  readonly guarded: readonly string[]
}

/** What is heard of the guardian. */
export interface GuardianEvents {
  /** The guardian is there: it was started, or found; again, after it was lost. */
  guardian: [pid: number]
  /**
   * The guardian was lost, does not answer, or cannot be started. It is tried again. With no
   * listener, a warning.
   */
  guardianTrouble: [error: UffdError]
  /** The guardian would serve the guest with this id from the moment on that this process cannot. */
  guarded: [id: string]
  /** The guardian could not serve the guest with this id, and why. With no listener, a warning. */
  unguarded: [id: string, error: UffdError]
}

const checkObject = object<Checked<GuardianOptions>>({
  path: optional(localFile),
  cgroup: optional(localFile),
  log: optional(localFile),
})

/** The option, with paths that are absolute. */
export type CheckedGuardian = boolean | Checked<GuardianOptions>

/** Whether there is to be a guardian, and how it is started. */
export const guardianOption: Check<CheckedGuardian> = (value, at) =>
  typeof value === 'boolean' ? value : checkObject(value, at)

/** A guardian has no guests without a directory in which they are kept. */
export function requireStateDir(
  {
    guardian,
    stateDir,
  }: {
    readonly guardian?: boolean | GuardianOptions | undefined
    readonly stateDir?: string | undefined
  },
  at: Place,
): void {
  if (guardian === undefined || guardian === false || stateDir !== undefined) return
  at.field('guardian').fail(
    'Expected stateDir too: a guardian serves the guests kept there',
    guardian,
  )
}

/** The same for the native part. */
export function nativeGuardian(
  option: CheckedGuardian | undefined,
): NativeGuardianOptions | undefined {
  if (option === undefined || option === false) return undefined
  const {
    path = native.guardianProgram() ?? undefined,
    cgroup,
    log,
  } = option === true ? {} : option
  if (path === undefined) {
    throw new UffdError(
      'ERR_UFFD_GUARDIAN',
      'The program of the guardian cannot be found beside the native part: name it with ' +
        '`guardian.path`',
    )
  }
  return { path, ...(cgroup !== undefined && { cgroup }), ...(log !== undefined && { log }) }
}

type Heard = Extract<
  NativeEvent,
  { type: 'guardianMet' | 'guardianTroubled' | 'guarded' | 'unguarded' }
>

/** Keeps account of what is heard of the guardian, and tells of it. */
export class Guarding {
  readonly #server: EventEmitter
  readonly #guarded = new Set<string>()
  #pid: number | undefined

  constructor(server: EventEmitter) {
    this.#server = server
  }

  get state(): GuardianState {
    return { pid: this.#pid, guarded: [...this.#guarded] }
  }

  /** The guest needs none any more. */
  forget(id: string): void {
    this.#guarded.delete(id)
  }

  take(heard: Heard): void {
    switch (heard.type) {
      case 'guardianMet':
        this.#pid = heard.pid
        return tell(this.#server, 'guardian', heard.pid)
      case 'guardianTroubled': {
        const error = fromNative(heard.error)
        if (error.code !== 'ERR_UFFD_GUARDIAN_SILENT') {
          this.#pid = undefined
          this.#guarded.clear()
        }
        if (this.#server.listenerCount('guardianTrouble') === 0) {
          return warn(error.message, error.code)
        }
        return tell(this.#server, 'guardianTrouble', error)
      }
      case 'guarded':
        this.#guarded.add(heard.handoffId)
        return tell(this.#server, 'guarded', heard.handoffId)
      case 'unguarded': {
        const { handoffId: id } = heard
        this.#guarded.delete(id)
        const error = fromNative(heard.error)
        if (this.#server.listenerCount('unguarded') === 0) {
          return warn(`The guest ${id} has no guardian: ${error.message}`, error.code)
        }
        return tell(this.#server, 'unguarded', id, error)
      }
    }
  }
}
