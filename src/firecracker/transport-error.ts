import { errors } from 'undici'
import type { UffdErrorCode } from '../errors.js'
import { FirecrackerError } from './errors.js'

type Explanation = readonly [code: UffdErrorCode, message: (socketPath: string) => string]

/** What errors of the socket mean, and the way out. */
const explanations: Readonly<Record<string, Explanation>> = {
  ECONNREFUSED: [
    'ERR_UFFD_FIRECRACKER_REFUSED',
    (path) => `nothing listens on ${path}; Firecracker has exited, or the socket file is stale`,
  ],
  EAGAIN: [
    'ERR_UFFD_FIRECRACKER_REFUSED',
    (path) => `too many connections wait on ${path}; Firecracker does not accept any`,
  ],
  ENOENT: [
    'ERR_UFFD_FIRECRACKER_SOCKET_MISSING',
    (path) => `there is no socket at ${path}; start Firecracker with --api-sock and wait for it`,
  ],
  ENOTSOCK: [
    'ERR_UFFD_FIRECRACKER_SOCKET_MISSING',
    (path) => `${path} is not a socket; give the path Firecracker got as --api-sock`,
  ],
  EACCES: [
    'ERR_UFFD_FIRECRACKER_ACCESS',
    (path) => `no permission for ${path}; run as the user that Firecracker runs as`,
  ],
}

const hangUps: ReadonlySet<string> = new Set(['UND_ERR_SOCKET', 'ECONNRESET', 'EPIPE'])

const lost = 'Firecracker hung up without an answer; look whether its process still runs'
const cutShort = 'the answer was cut short; look whether Firecracker still runs'
const notHttp = 'the answer is not HTTP; is this socket the API of Firecracker?'

/** An error of undici or of the socket, in the terms of this package. */
export function transportError(
  request: string,
  socketPath: string,
  error: unknown,
  answerBegan: boolean,
): FirecrackerError {
  if (error instanceof FirecrackerError) return error
  const code = codeOf(error)
  const known = explanations[code]
  if (known !== undefined) {
    return new FirecrackerError(known[0], request, known[1](socketPath), { cause: error })
  }
  const bad = (message: string) =>
    new FirecrackerError('ERR_UFFD_FIRECRACKER_BAD_ANSWER', request, message, { cause: error })
  if (code.startsWith('HPE_') && code !== 'HPE_INVALID_EOF_STATE') return bad(notHttp)
  if (answerBegan || bytesRead(error) > 0) return bad(cutShort)
  const why = hangUps.has(code) ? lost : `the connection to ${socketPath} failed: ${String(error)}`
  return new FirecrackerError('ERR_UFFD_FIRECRACKER_CONNECTION_LOST', request, why, {
    cause: error,
  })
}

function codeOf(error: unknown): string {
  return error instanceof Error && 'code' in error ? String(error.code) : ''
}

/** How much of an answer arrived; undici tells it with the errors of its socket. */
function bytesRead(error: unknown): number {
  return error instanceof errors.SocketError ? (error.socket?.bytesRead ?? 0) : 0
}
