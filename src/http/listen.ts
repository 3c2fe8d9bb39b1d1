import { once } from 'node:events'
import { type Server as HttpServer } from 'node:http'
import { type ListenOptions } from 'node:net'
import native, { type ErrorInfo, type NativeBoundSocket } from '#native'
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
  const bound: NativeBoundSocket | ErrorInfo = await native.bindSocket(path)
  if ('code' in bound) {
    throw new UffdError(code, `${what}: ${bound.message}`, { cause: fromNative(bound) })
  }
  const leave = () => bound.remove()
  // For as long as the server listens its file is there, whoever has forgotten what is returned here.
  server.once('close', leave)
  try {
    // Exclusive: a worker of a cluster has descriptors of its own.
    await listening(server, { fd: bound.descriptor, exclusive: true })
  } catch (error) {
    leave()
    throw new UffdError(code, `${what}: ${(error as Error).message}`, { cause: error })
  }
  return leave
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
