import { isIP } from 'node:net'
import { socketFile, type Check } from '../validate.js'

/** Where to listen: a port of a host, or a Unix socket. */
export type Address = { readonly host: string; readonly port: number } | { readonly path: string }

const loopback = '127.0.0.1'

/**
 * Reads `HOST:PORT`, `PORT` (on 127.0.0.1), `[::1]:PORT` or `unix:PATH`. Port 0 is any that is
 * free.
 */
export const address: Check<Address> = (value, at) => {
  if (typeof value !== 'string') return at.expected(wanted, value)
  if (value.startsWith('unix:')) return { path: socketFile(value.slice('unix:'.length), at) }
  const { host, bracketed, port } =
    /^(?:(?:\[(?<bracketed>[^\]]*)\]|(?<host>[^:[\]]*)):)?(?<port>\d{1,5})$/.exec(value)?.groups ??
    {}
  if (port === undefined || Number(port) > 65_535) return at.expected(wanted, value)
  if (bracketed !== undefined && isIP(bracketed) !== 6) return at.expected(wanted, value)
  return { host: bracketed ?? (host || loopback), port: Number(port) }
}

const wanted = 'HOST:PORT (such as 127.0.0.1:9100) or unix:PATH'

/** Whether only this host reaches it. */
export function isLocal(host: string): boolean {
  return host === 'localhost' || host === '::1' || (isIP(host) === 4 && host.startsWith('127.'))
}
