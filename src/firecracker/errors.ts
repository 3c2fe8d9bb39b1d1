import { UffdError, type UffdErrorCode } from '../errors.js'
import type { FirecrackerVersion } from './version.js'

/** A request to Firecracker's API failed. */
export class FirecrackerError extends UffdError {
  override readonly name: string = 'FirecrackerError'

  /** Method and path, as in `PUT /snapshot/load`. */
  readonly request: string

  constructor(code: UffdErrorCode, request: string, message: string, options?: ErrorOptions) {
    super(code, `${request}: ${message}`, options)
    this.request = request
  }
}

/** Firecracker answered, and the answer is no. */
export class FirecrackerHttpError extends FirecrackerError {
  override readonly name = 'FirecrackerHttpError'

  /** The HTTP status, 400 for nearly everything Firecracker refuses. */
  readonly status: number

  /** Firecracker's own words; absent if the answer carried none. */
  readonly faultMessage: string | undefined

  constructor(request: string, status: number, faultMessage: string | undefined) {
    const why = faultMessage ?? 'it gave no reason; its log may'
    super('ERR_UFFD_FIRECRACKER_HTTP', request, `Firecracker answered ${status}: ${why}`)
    this.status = status
    this.faultMessage = faultMessage
  }
}

/** Something was asked for that this version of Firecracker does not have. */
export class FirecrackerUnsupportedError extends UffdError {
  override readonly name = 'FirecrackerUnsupportedError'

  /** The option that asked for it, such as `freePageReporting`, or `The template` as a whole. */
  readonly feature: string

  /** The first version that has it. */
  readonly needed: string

  /** The version there is. */
  readonly actual: string

  constructor(feature: string, needed: string, actual: FirecrackerVersion, wayOut: string) {
    super(
      'ERR_UFFD_FIRECRACKER_UNSUPPORTED',
      `${feature} needs Firecracker ${needed} or later, but this is ${actual}. ` +
        `Upgrade Firecracker, or ${wayOut}`,
    )
    this.feature = feature
    this.needed = needed
    this.actual = actual.toString()
  }
}
