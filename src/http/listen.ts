import { once } from 'node:events'
import { closeSync, fstatSync } from 'node:fs'
import { type Server as HttpServer } from 'node:http'
import { type ListenOptions } from 'node:net'
import native from '#native'
import { UffdError, type UffdErrorCode } from '../errors.js'
import { fromNative } from '../native-errors.js'
import type { Address } from './address.js'

/** Leaves the place, so that the next may have it. May be called again. */
export type Leave = () => void

/**
 * Listens, and takes over a Unix socket that nobody listens on any more. `code` and `what` are for
 * the error: what cannot be done there. Returns how to leave the place; nobody is hung up on by it.
 */
export async function listenAt(
  server: HttpServer,
  at: Address,
  code: UffdErrorCode,
  what: string,
): Promise<Leave> {
  if ('path' in at) return await listenOnSocket(server, at.path, code, what)
  try {
    await listening(server, at)
  } catch (error) {
    const why = reasonOf(error as NodeJS.ErrnoException)
    throw new UffdError(code, `${what} at ${at.host}:${at.port}: ${why}`, { cause: error })
  }
  return () => {}
}

/** Bound by the core, as is the socket that guests connect to: for this user alone from the first. */
async function listenOnSocket(
  server: HttpServer,
  path: string,
  code: UffdErrorCode,
  what: string,
): Promise<Leave> {
  const bound = new native.NativeBoundSocket()
  const failure = await bound.bind(path)
  if (failure !== null) {
    throw new UffdError(code, `${what}: ${failure.message}`, { cause: fromNative(failure) })
  }
  const leave = () => bound.remove()
  // For as long as the server listens its file is there, whoever has forgotten what is returned here.
  server.once('close', leave)
  const fd = bound.take()!
  const { ino } = fstatSync(fd)
  try {
    // Exclusive: a worker of a cluster has descriptors of its own.
    await listening(server, { fd, exclusive: true })
  } catch (error) {
    leave()
    closeUnlessTaken(fd, ino)
    throw new UffdError(code, `${what}: ${(error as Error).message}`, { cause: error })
  }
  return leave
}

/** Node.js may have closed it where it could not listen, and the number be that of another since. */
function closeUnlessTaken(fd: number, ino: number): void {
  try {
    if (fstatSync(fd).ino === ino) closeSync(fd)
  } catch {
    // It is closed.
  }
}

async function listening(server: HttpServer, at: ListenOptions & { fd?: number }): Promise<void> {
  server.listen(at)
  await once(server, 'listening')
}

function reasonOf({ code, message }: NodeJS.ErrnoException): string {
  const hint = {
    EADDRINUSE: 'something else listens there; choose another port',
    EACCES: 'this user may not listen there; choose a port from 1024 on',
    EADDRNOTAVAIL: 'this host has no such address; give one of its own, such as 127.0.0.1',
    ENOTFOUND: 'the name has no address; give another, or the address',
  }[code ?? '']
  return hint ?? message
}
