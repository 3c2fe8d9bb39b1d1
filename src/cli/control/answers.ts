import { protocol } from '../../control/facts.js'
import { UffdValidationError } from '../../errors.js'
import { arrayOf, type Check, looseObject, oneOf, optional, Place, record } from '../../validate.js'
import { failure } from './client.js'

const count: Check<number> = (value, at) =>
  typeof value === 'number' && value >= 0 ? value : at.expected('a number', value)

const words: Check<string> = (value, at) =>
  typeof value === 'string' ? value : at.expected('a text', value)

const yes: Check<boolean> = (value, at) =>
  typeof value === 'boolean' ? value : at.expected('true or false', value)

/** Times may be infinite, which JSON cannot say. */
const micros: Check<number> = (value, at) => (value === null ? Infinity : count(value, at))

/** How many guests ended how. */
export interface Ends {
  readonly exited: number
  readonly stopped: number
  readonly handedOver: number
  readonly released: number
  readonly failed: number
}

const ends = looseObject<Ends>({
  exited: count,
  stopped: count,
  handedOver: count,
  released: count,
  failed: count,
})

/** A guest as a server tells of it: what a table shows. */
export interface GuestStatus {
  readonly id: string
  readonly pid?: number | undefined
  readonly peer: { readonly root?: string | undefined }
  readonly tags: Readonly<Record<string, unknown>>
  readonly memoryBytes: number
  readonly pageSize: number
  readonly tracking: string
  readonly counters: {
    readonly readFaults: number
    readonly writeFaults: number
    readonly protectFaults: number
  }
  readonly pages: {
    readonly unfaulted: number
    readonly clean: number
    readonly zero: number
    readonly dirty: number
    readonly removed: number
    readonly poisoned: number
  }
  readonly now: { readonly faultsInHand: number; readonly prefaultPendingPages: number }
  readonly latencyMicros: { readonly p50: number; readonly p99: number }
}

const guest = looseObject<GuestStatus>({
  id: words,
  pid: optional(count),
  peer: looseObject({ root: optional(words) }),
  tags: record,
  memoryBytes: count,
  pageSize: count,
  tracking: words,
  counters: looseObject({ readFaults: count, writeFaults: count, protectFaults: count }),
  pages: looseObject({
    unfaulted: count,
    clean: count,
    zero: count,
    dirty: count,
    removed: count,
    poisoned: count,
  }),
  now: looseObject({ faultsInHand: count, prefaultPendingPages: count }),
  latencyMicros: looseObject({ p50: micros, p99: micros }),
})

/** A server as it tells of itself. */
export interface ServerStatus {
  readonly version: string
  readonly pid: number
  readonly uptimeMs: number
  readonly socket: string
  readonly snapshot: string
  readonly accepts: boolean
  readonly stateDir?: string | undefined
  readonly guardian?: number | undefined
  readonly arrived: number
  readonly refused: number
  readonly ends: Ends
  readonly guests: readonly GuestStatus[]
}

const status = looseObject<ServerStatus>({
  version: words,
  pid: count,
  uptimeMs: count,
  socket: words,
  snapshot: words,
  accepts: yes,
  stateDir: optional(words),
  guardian: optional(count),
  arrived: count,
  refused: count,
  ends,
  guests: arrayOf(guest),
})

/** What a server that was told to stop says first. */
export interface Stopping {
  readonly pid: number
  readonly guests: number
}

const stopping = looseObject<Stopping>({ pid: count, guests: count })

const reasons = ['guest-exited', 'stopped', 'handed-over', 'released', 'failed'] as const

/** And last. */
export interface Stopped {
  readonly ends: Ends
  readonly guests: readonly {
    readonly id: string
    readonly pid?: number | undefined
    readonly reason?: (typeof reasons)[number] | undefined
    readonly code?: string | undefined
  }[]
}

const stopped = looseObject<Stopped>({
  ends,
  guests: arrayOf(
    looseObject({
      id: words,
      pid: optional(count),
      reason: optional(oneOf(reasons)),
      code: optional(words),
    }),
  ),
})

export const statusIn = reader(status)
export const stoppingIn = reader(stopping)
export const stoppedIn = reader(stopped)

/** Refuses what another version of the protocol says. */
export function checkProtocol(answer: unknown, control: string): void {
  const { protocol: spoken } = reader(record)(answer, control)
  if (spoken === protocol) return
  const why = `speaks version ${JSON.stringify(spoken)} of the protocol, and this command ${protocol}`
  throw failure(control, `${why}: use the uffd-rs-serve that the server is of`)
}

function reader<T>(check: Check<T>): (answer: unknown, control: string) => T {
  return (answer, control) => {
    try {
      return check(answer, placeOf(control))
    } catch (error) {
      if (!(error instanceof UffdValidationError)) throw error
      throw failure(control, `did not answer as a server of uffd-rs: ${error.message}`, error)
    }
  }
}

const placeOf = (control: string) => new Place('ERR_UFFD_CONTROL', `field of ${control}`)
