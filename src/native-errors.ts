import { type ErrorInfo } from '#native'
import { errorCodes, UffdError, UffdPageError, type UffdErrorCode } from './errors.js'

/** The one place where errors of the native part become errors of this package. */
export function fromNative({ code, message, page, offset }: ErrorInfo): UffdError {
  const known = isCode(code) ? code : 'ERR_UFFD_INTERNAL'
  return page !== undefined && offset !== undefined
    ? new UffdPageError(known, message, page, offset)
    : new UffdError(known, message)
}

/** Calls into the native part; what that throws becomes an error of this package. */
export function calling<T>(work: () => T): T {
  try {
    return work()
  } catch (error) {
    const { code, message } = error as { code?: unknown; message?: unknown }
    throw new UffdError(isCode(code) ? code : 'ERR_UFFD_INTERNAL', String(message), {
      cause: error,
    })
  }
}

function isCode(code: unknown): code is UffdErrorCode {
  return typeof code === 'string' && Object.hasOwn(errorCodes, code)
}
