import { type EndReason, type EndReport, type Stats } from '#native'
import { type UffdError } from '../errors.js'
import { fromNative } from '../native-errors.js'

/** How a guest ended: said exactly once, after everything else. */
export interface GuestEnd {
  /**
   * `guest-exited`: its process is gone. `stopped`: it was asked for. `handed-over`: it was
   * left in the state directory to a successor. `released`: it has all it needs, and needs no
   * handler any more. `failed`: it cannot be served any longer; unless it was killed, its threads
   * wait at the next page they miss or give back, and it is for the orchestrator to end it.
   */
  readonly reason: EndReason
  /** Why it failed; absent for the other reasons. */
  readonly error?: UffdError
  /** The final figures. */
  readonly stats: Stats
}

export function guestEnd({ reason, error, stats }: EndReport): GuestEnd {
  return { reason, ...(error !== undefined && { error: fromNative(error) }), stats }
}
