import { shorten } from '../show.js'
import { UffdValidationError } from '../errors.js'
import type { Answer } from './connection.js'
import { FirecrackerError, FirecrackerHttpError } from './errors.js'

/** Success is any 2xx: the same request is answered with 200 or 204, by version. */
export function refuseFailure(request: string, { status, text }: Answer): void {
  if (status < 200 || status > 299) {
    throw new FirecrackerHttpError(request, status, faultMessage(text))
  }
}

/** Reads the JSON of a successful answer. */
export function readAnswer<T>(request: string, answer: Answer, read: (body: unknown) => T): T {
  refuseFailure(request, answer)
  try {
    return read(JSON.parse(answer.text))
  } catch (error) {
    const why =
      error instanceof UffdValidationError
        ? error.message
        : `the answer is not JSON: ${shorten(JSON.stringify(answer.text))}`
    throw new FirecrackerError('ERR_UFFD_FIRECRACKER_BAD_ANSWER', request, why, { cause: error })
  }
}

/**
 * The published error has one field, and Firecracker's HTTP server, where it refuses by itself
 * (too many connections, too large a body), another. Anything else is passed on as it is.
 */
function faultMessage(text: string): string | undefined {
  try {
    const body: unknown = JSON.parse(text)
    if (typeof body === 'object' && body !== null) {
      if ('fault_message' in body) return String(body.fault_message)
      if ('error' in body && typeof body.error === 'string') return body.error
    }
  } catch {
    // Not JSON: the text itself is all there is to tell.
  }
  return text === '' ? undefined : shorten(text, 1000)
}
