import { type UffdError } from '../errors.js'
import { type Guest } from '../guest/guest.js'
import { type GuardianState } from './guardian.js'
import { type NotRecovered } from './left.js'
import { type CheckedOptions } from './options.js'

/** A guest that has ended, for whoever looks into the server. */
export interface EndedGuest {
  readonly id: string
  readonly pid: number | undefined
  readonly at: string
  readonly reason: string
  readonly code: string | undefined
  readonly message: string | undefined
}

/** What is known of a server that is not public. */
export interface About {
  readonly isOpen: boolean
  readonly uptimeMs: number
  readonly stateDir: string | undefined
  readonly options: CheckedOptions['native']
  readonly refusals: number
  readonly lastRefusal: UffdError | undefined
  readonly ended: readonly EndedGuest[]
}

/** A server as those see it who tell others of it: over HTTP, at a control socket. */
export interface Inspected {
  readonly socket: string
  readonly snapshot: string
  readonly guests: readonly Guest[]
  readonly recovered: readonly Guest[]
  readonly notRecovered: readonly NotRecovered[]
  readonly swept: readonly string[]
  readonly guardian: GuardianState | undefined
  about(): About
  figures(): Float64Array
  gone(): Promise<void>
}
