import { chmodSync, lstatSync, unlinkSync } from 'node:fs'
import { once } from 'node:events'
import { type Server as HttpServer } from 'node:http'
import { connect } from 'node:net'
import { UffdError, type UffdErrorCode } from '../errors.js'
import type { Address } from './address.js'

/**
 * Listens, and takes over a Unix socket that nobody listens on any more. `code` and `what` are for
 * the error: what cannot be done there.
 */
export async function listenAt(
  server: HttpServer,
  at: Address,
  code: UffdErrorCode,
  what: string,
): Promise<void> {
  const refused = (error: unknown) => {
    const why = reasonOf(error as NodeJS.ErrnoException)
    return new UffdError(code, `${what} ${placeOf(at)}: ${why}`, { cause: error })
  }
  try {
    await listening(server, at)
  } catch (error) {
    const isTaken = (error as NodeJS.ErrnoException).code === 'EADDRINUSE'
    if (!isTaken || !('path' in at) || !(await isStale(at.path))) throw refused(error)
    unlinkSync(at.path)
    try {
      await listening(server, at)
    } catch (again) {
      throw refused(again)
    }
  }
  // Until here it was as the umask says; figures are no secret worth more than that moment.
  if ('path' in at) chmodSync(at.path, 0o600)
}

async function listening(server: HttpServer, at: Address): Promise<void> {
  server.listen(at)
  await once(server, 'listening')
}

/** Whether a socket is there that nobody listens on. */
async function isStale(path: string): Promise<boolean> {
  if (lstatSync(path, { throwIfNoEntry: false })?.isSocket() !== true) return false
  const socket = connect(path)
  try {
    await once(socket, 'connect')
    return false
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'ECONNREFUSED'
  } finally {
    socket.destroy()
  }
}

const placeOf = (at: Address) => ('path' in at ? `unix:${at.path}` : `${at.host}:${at.port}`)

function reasonOf({ code, message }: NodeJS.ErrnoException): string {
  const hint = {
    EADDRINUSE: 'something else is there: choose another',
    EACCES: 'this user may not listen there: choose another',
    EADDRNOTAVAIL: 'this host has no such address: choose one that it has',
    ENOENT: 'there is no such directory: make it first',
    ENOTFOUND: 'the name has no address: choose another',
  }[code ?? '']
  return hint ?? message
}
