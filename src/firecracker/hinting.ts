import { boolean, integer, optional, options } from '../validate.js'
import { checkFields, field, fromWire, toWire, type Fields } from './wire.js'

/** How a run of free page hinting is started. */
export interface HintingStart {
  /**
   * Acknowledge by itself when the guest says that it is done, so that the guest
   * can use the hinted pages again.
   * @default Firecracker's own
   */
  readonly acknowledgeOnStop?: boolean | undefined
}

/** `GET /balloon/hinting/status`: the last commands of both sides, as numbers. */
export interface HintingStatus {
  /** The last command the host issued. */
  readonly hostCmd: number
  /** The last command the guest sent; absent if it sent none. */
  readonly guestCmd?: number | undefined
}

const startFields: Fields<HintingStart> = {
  acknowledgeOnStop: field('acknowledge_on_stop', optional(boolean)),
}

const statusFields: Fields<HintingStatus> = {
  hostCmd: field('host_cmd', integer()),
  guestCmd: field('guest_cmd', optional(integer())),
}

const checkStart = checkFields(startFields)

/** The body of `PATCH /balloon/hinting/start`; none if there is nothing to say. */
export function hintingStartBody(start: HintingStart): Record<string, unknown> | undefined {
  const body = toWire(startFields, checkStart(start, options()))
  return Object.keys(body).length === 0 ? undefined : body
}

export const readHintingStatus: (body: unknown) => HintingStatus = fromWire(statusFields)
