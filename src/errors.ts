/**
 * Every code an error of this package can carry, and what it means.
 * A code never changes its meaning; messages may.
 */
export const errorCodes = {
  ERR_UFFD_INVALID_OPTION: 'an option has a wrong name, type or value; the message names it',
  ERR_UFFD_INVALID_TEMPLATE: 'a sandbox template cannot be read or one of its fields is wrong',
  ERR_UFFD_FIRECRACKER_ABORTED: 'the AbortSignal of a request fired before its answer came',
  ERR_UFFD_FIRECRACKER_ACCESS: 'no permission to connect to the API socket',
  ERR_UFFD_FIRECRACKER_BAD_ANSWER:
    'the answer was cut short, is not HTTP or not the published JSON',
  ERR_UFFD_FIRECRACKER_BAD_VERSION: 'the version cannot be understood',
  ERR_UFFD_FIRECRACKER_CLOSED: 'the client was closed',
  ERR_UFFD_FIRECRACKER_CONNECTION_LOST:
    'Firecracker hung up before it answered; it may have exited',
  ERR_UFFD_FIRECRACKER_HTTP: 'Firecracker refused the request; see `status` and `faultMessage`',
  ERR_UFFD_FIRECRACKER_REFUSED: 'the API socket exists, but nothing accepts connections there',
  ERR_UFFD_FIRECRACKER_SOCKET_MISSING: 'there is no API socket at this path',
  ERR_UFFD_FIRECRACKER_TIMEOUT: 'no answer within the deadline',
  ERR_UFFD_FIRECRACKER_UNSUPPORTED: 'this version of Firecracker lacks what was asked for',
} as const

/** A stable code, to be compared instead of messages. */
export type UffdErrorCode = keyof typeof errorCodes

/** The base of every error this package throws on purpose. */
export class UffdError extends Error {
  override readonly name: string = 'UffdError'

  /** What went wrong, for programs. */
  readonly code: UffdErrorCode

  constructor(code: UffdErrorCode, message: string, options?: ErrorOptions) {
    super(message, options)
    this.code = code
  }
}

/** A value given to this package is not what it has to be. */
export class UffdValidationError extends UffdError {
  override readonly name = 'UffdValidationError'

  /** The option or field, as a path: `balloon.amountMib`. */
  readonly field: string

  /** What was found there. */
  readonly value: unknown

  constructor(code: UffdErrorCode, message: string, field: string, value: unknown) {
    super(code, message)
    this.field = field
    this.value = value
  }
}
