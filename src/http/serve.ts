import { exposition, formatFor, formats } from '../metrics/exposition.js'
import { labelName, metricsOfGuests } from '../metrics/of-guests.js'
import { measured, table } from '../metrics/table.js'
import type { Inspected } from '../server/inspected.js'
import { arrayOf, boolean, object, optional, options } from '../validate.js'
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
  /**
   * Which of the guests' tags are labels of the series of each guest: `['vm']` for
   * `uffd_guest_faults_total{guest="…",pid="…",vm="7"}`. A guest without that tag has no such label.
   * There are no more series for it.
   * @default none
   */
  readonly tagLabels?: readonly string[] | undefined
}

const checkOptions = object<HttpOptions>({
  perGuest: optional(boolean),
  tagLabels: optional(arrayOf(labelName)),
})

/** Serves a server's figures; see `Server.http`. */
export async function serveHttp(
  server: Inspected,
  at: unknown,
  httpOptions: HttpOptions,
): Promise<HttpEndpoint> {
  const { perGuest = false, tagLabels = [] } = checkOptions(httpOptions, options())
  if (tagLabels.length > 0 && !perGuest) {
    const why = 'The option "tagLabels" needs "perGuest": only the series of a guest have its tags'
    options().field('tagLabels').fail(why, tagLabels)
  }
  const where = address(at, options().field('http'))
  return await HttpEndpoint.open(
    where,
    pagesOf(server, perGuest ? tagLabels : undefined, await livePage()),
  )
}

const healthz: Page = () => ({ type: 'text/plain; charset=utf-8', body: 'ok\n' })

/** Without `tagLabels` there are no series of guests. */
function pagesOf(
  server: Inspected,
  tagLabels: readonly string[] | undefined,
  live: readonly [string, Page][],
): Pages {
  const metrics: Page = ({ headers }) => {
    const format = formatFor(headers.accept)
    const all = [
      ...measured(table, server.figures()),
      ...(tagLabels === undefined ? [] : metricsOfGuests(server.guests, tagLabels)),
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
