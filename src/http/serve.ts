import { exposition, formatFor, formats } from '../metrics/exposition.js'
import { metricsOfGuests } from '../metrics/of-guests.js'
import { measured, table } from '../metrics/table.js'
import type { Server } from '../server/server.js'
import { boolean, object, optional, options } from '../validate.js'
import { address } from './address.js'
import { HttpEndpoint } from './endpoint.js'
import { Feed } from './feed.js'
import { describeGuest } from './guests.js'
import { livePage } from './live-page.js'
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
  const where = address(at, options().field('http'))
  return await HttpEndpoint.open(where, pagesOf(server, perGuest, await livePage()))
}

const healthz: Page = () => ({ type: 'text/plain; charset=utf-8', body: 'ok\n' })

function pagesOf(server: Server, perGuest: boolean, live: readonly [string, Page][]): Pages {
  const metrics: Page = ({ headers }) => {
    const format = formatFor(headers.accept)
    const all = [
      ...measured(table, server.figures()),
      ...(perGuest ? metricsOfGuests(server.guests) : []),
    ]
    return { type: formats[format], body: exposition(all, format) }
  }
  const guests: Page = () => json({ guests: server.guests.map(describeGuest) })
  const feed = new Feed(server)
  const events: Page = (_request, query) => {
    if (feed.isFull) return { refused: 503, why: 'Too many watch already' }
    const guest = query.get('guest') ?? undefined
    return { type: 'text/event-stream', stream: (response) => feed.add(response, guest) }
  }
  return new Map([
    ...live,
    ['/events', events],
    ['/metrics', metrics],
    ['/guests', guests],
    ['/healthz', healthz],
  ])
}

const json = (value: unknown) => ({
  type: 'application/json; charset=utf-8',
  body: `${JSON.stringify(value)}\n`,
})
