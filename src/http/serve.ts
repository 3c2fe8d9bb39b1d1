import { exposition, formatFor, formats } from '../metrics/exposition.js'
import { metricsOfGuests } from '../metrics/of-guests.js'
import { measured, table } from '../metrics/table.js'
import type { Server } from '../server/server.js'
import { boolean, object, optional, options } from '../validate.js'
import { address } from './address.js'
import { HttpEndpoint } from './endpoint.js'
import { describeGuest } from './guests.js'
import type { Page, Pages } from './respond.js'

/** What is served over HTTP. */
export interface HttpOptions {
  /**
   * Whether `/metrics` has series for each guest as well, `uffd_guest_…` with its id: some
   * thirty a guest.
   * @default false
   */
  readonly perGuest?: boolean | undefined
}

const checkOptions = object<HttpOptions>({ perGuest: optional(boolean) })

/** Serves a server's figures; see {@link Server.http}. */
export async function serveHttp(
  server: Server,
  at: unknown,
  httpOptions: HttpOptions,
): Promise<HttpEndpoint> {
  const { perGuest = false } = checkOptions(httpOptions, options())
  return await HttpEndpoint.open(address(at, options().field('http')), pagesOf(server, perGuest))
}

const healthz: Page = () => ({ type: 'text/plain; charset=utf-8', body: 'ok\n' })

function pagesOf(server: Server, perGuest: boolean): Pages {
  const metrics: Page = ({ headers }) => {
    const format = formatFor(headers.accept)
    const all = [
      ...measured(table, server.figures()),
      ...(perGuest ? metricsOfGuests(server.guests) : []),
    ]
    return { type: formats[format], body: exposition(all, format) }
  }
  const guests: Page = () => json({ guests: server.guests.map(describeGuest) })
  return new Map([
    ['/metrics', metrics],
    ['/guests', guests],
    ['/healthz', healthz],
  ])
}

const json = (value: unknown) => ({
  type: 'application/json; charset=utf-8',
  body: `${JSON.stringify(value)}\n`,
})
