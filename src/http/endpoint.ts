import { type IncomingMessage, type Server as HttpServer, type ServerResponse } from 'node:http'
import { type AddressInfo } from 'node:net'
import { type Address, isLocal } from './address.js'
import { boundedServer } from './bounded.js'
import { type Leave, listenAt } from './listen.js'
import { type Pages, respond } from './respond.js'

/** Where a server's figures are served. Keeps no process alive. */
export class HttpEndpoint implements AsyncDisposable {
  /** Where it is: `http://127.0.0.1:9100`, or `unix:PATH`. */
  readonly url: string
  readonly #server: HttpServer
  readonly #leave: Leave
  #closed: Promise<void> | undefined

  private constructor(server: HttpServer, at: Address, leave: Leave) {
    this.#server = server
    this.#leave = leave
    this.url = urlOf(server, at)
  }

  /** @internal */
  static async open(at: Address, pages: Pages): Promise<HttpEndpoint> {
    const onlyLocal = 'host' in at && isLocal(at.host)
    const server = boundedServer((request, response) => answer(request, response, pages, onlyLocal))
    const leave = await listenAt(server, at, 'ERR_UFFD_HTTP', 'Cannot serve figures')
    return new HttpEndpoint(server, at, leave)
  }

  /** Serves no more, and hangs up on whoever is connected. May be called again. */
  async close(): Promise<void> {
    this.#leave()
    this.#closed ??= new Promise((resolve) => this.#server.close(() => resolve()))
    this.#server.closeAllConnections()
    await this.#closed
  }

  /** The same as {@link close}. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.close()
  }
}

function answer(
  request: IncomingMessage,
  response: ServerResponse,
  pages: Pages,
  onlyLocal: boolean,
): void {
  // A page of somewhere else, whose name was made to point here, must not read it.
  if (onlyLocal && !isLocal(hostOf(request))) {
    response.writeHead(403, { 'content-type': 'text/plain', connection: 'close' })
    response.end('Ask for this by its address, or as localhost\n')
    return
  }
  respond(request, response, pages)
}

/** The host that a client thinks it talks to, without its port. */
function hostOf({ headers: { host = '' } }: IncomingMessage): string {
  return /^\[(?<v6>[^\]]*)\]/.exec(host)?.groups?.['v6'] ?? host.replace(/:\d*$/, '').toLowerCase()
}

function urlOf(server: HttpServer, at: Address): string {
  if ('path' in at) return `unix:${at.path}`
  const { port } = server.address() as AddressInfo
  return `http://${at.host.includes(':') ? `[${at.host}]` : at.host}:${port}`
}
