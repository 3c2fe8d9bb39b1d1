import type { Guest } from '../guest/guest.js'
import type { Page } from '../http/respond.js'
import type { Inspected } from '../server/inspected.js'
import { localSocket, options } from '../validate.js'
import { ControlEndpoint } from './endpoint.js'
import { dumpOf, endsOf, protocol, statusOf } from './facts.js'

/** What a server does when it is told to stop. */
export interface Controlled {
  /** Begins to end, with the guests left to the next server or stopped; may be called again. */
  readonly stop: (leavesGuests: boolean) => void
  /** The process ends soon after the server: who waits for one waits for the other. */
  readonly endsProcess: boolean
}

/** Lets a server be controlled at a Unix socket; see `Server.control`. */
export async function serveControl(
  server: Inspected,
  at: unknown,
  { stop, endsProcess }: Controlled,
): Promise<ControlEndpoint> {
  const place = options().field('control')
  const given = typeof at === 'string' ? at.replace(/^unix:/, '') : at
  const path = localSocket(given, place)

  const status: Page = () => json(statusOf(server))
  const dump: Page = (_request, query) => {
    const id = query.get('guest')
    const guests = server.guests.filter((guest) => id === null || named(guest, id))
    if (id !== null && guests.length === 0) {
      return { refused: 404, why: `There is no guest ${id} here now` }
    }
    return {
      type,
      stream: (response) => {
        dumpOf(server, guests)
          .then((all) => response.end(`${JSON.stringify(all)}\n`))
          .catch((error: Error) => response.destroy(error))
      },
    }
  }
  const stopIt =
    (own: ControlEndpoint): Page =>
    (_request, query) => {
      const leavesGuests = query.has('hand-over')
      if (leavesGuests && server.about().stateDir === undefined) {
        return { refused: 409, why: 'It has no state directory in which guests could be left' }
      }
      const guests = server.guests
      return {
        type: 'application/jsonl',
        stream: (response) => {
          own.hold(response, { protocol, pid: process.pid, guests: guests.length })
          void server.gone().then(() => own.tellEnd(endOf(server, guests), endsProcess))
          stop(leavesGuests)
        },
      }
    }
  return await ControlEndpoint.open(
    path,
    new Map([
      ['/status', status],
      ['/dump', dump],
    ]),
    (own) => new Map([['/stop', stopIt(own)]]),
  )
}

/** A guest is named by its id, or the beginning of it, or its process. */
const named = ({ id, pid }: Guest, name: string) =>
  id === name || `${pid}` === name || (name.length >= 4 && id.startsWith(name))

/** What the server came to, and the guests it had. */
function endOf(server: Inspected, guests: readonly Guest[]) {
  return {
    ended: true,
    ends: endsOf(server),
    guests: guests.map(({ id, pid, endSoFar }) => {
      return { id, pid, reason: endSoFar?.reason, code: endSoFar?.error?.code }
    }),
  }
}

const type = 'application/json; charset=utf-8'
const json = (value: object) => ({ type, body: `${JSON.stringify(value)}\n` })
