import { orAborted } from '../abort.js'
import { type UffdErrorCode } from '../errors.js'
import { FirecrackerError } from '../firecracker/errors.js'
import { type Guest } from '../guest/guest.js'

const hangUps: ReadonlySet<UffdErrorCode> = new Set([
  'ERR_UFFD_FIRECRACKER_CONNECTION_LOST',
  'ERR_UFFD_FIRECRACKER_REFUSED',
  'ERR_UFFD_FIRECRACKER_BAD_ANSWER',
])

/** How long the end of a process may take to be seen after its connections broke. */
const endingMs = 1000

/**
 * If Firecracker broke a connection off, as it does when it ends, waits a moment for the end of
 * the guest: then it can be told as what it is.
 */
export async function endAfterHangUp(guest: Guest, cause: unknown): Promise<void> {
  if (!(cause instanceof FirecrackerError && hangUps.has(cause.code))) return
  const giveUp = new AbortController()
  const timer = setTimeout(() => giveUp.abort(), endingMs)
  try {
    await orAborted('Waiting for the end', giveUp.signal, guest.ended)
  } catch {
    // It only hung up.
  } finally {
    clearTimeout(timer)
  }
}
