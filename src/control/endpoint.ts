import { type Server as HttpServer, type ServerResponse } from 'node:http'
import type { Socket } from 'node:net'
import native from '#native'
import { boundedServer } from '../http/bounded.js'
import { type Leave, listenAt } from '../http/listen.js'
import { type Pages, respond } from '../http/respond.js'

/** A connection that says and takes nothing for so long is closed. */
const idleMs = 30_000

/** Where a server can be asked how it does, and be told to stop. Keeps no process alive. */
export class ControlEndpoint implements AsyncDisposable {
  /** Its Unix socket. */
  readonly path: string
  readonly #server: HttpServer
  readonly #asked = new WeakSet<Socket>()
  readonly #waiting = new Set<ServerResponse>()
  #leave: Leave | undefined

  private constructor(path: string, pages: Pages, actions: (own: ControlEndpoint) => Pages) {
    this.path = path
    const does = actions(this)
    this.#server = boundedServer((request, response) => {
      const { socket } = request
      // One question a connection: answers that nobody reads would pile up otherwise.
      if (this.#asked.has(socket)) return void socket.destroy()
      this.#asked.add(socket)
      response.shouldKeepAlive = false
      respond(request, response, pages, does)
    })
    this.#server.on('connection', take)
  }

  /** @internal */
  static async open(
    path: string,
    pages: Pages,
    actions: (own: ControlEndpoint) => Pages,
  ): Promise<ControlEndpoint> {
    const endpoint = new ControlEndpoint(path, pages, actions)
    const server = endpoint.#server
    endpoint.#leave = await listenAt(server, { path }, 'ERR_UFFD_CONTROL', 'Cannot be controlled')
    return endpoint
  }

  /** @internal The client waits for the end, and is told of the beginning. */
  hold(response: ServerResponse, beginning: object): void {
    response.socket?.setTimeout(0)
    response.on('error', () => {})
    response.once('close', () => this.#waiting.delete(response))
    this.#waiting.add(response)
    response.write(`${JSON.stringify(beginning)}\n`)
  }

  /**
   * @internal Tells those who wait what it came to. They are hung up on, or where `stays`, find out
   * by themselves when this process is gone.
   */
  tellEnd(end: object, stays: boolean): void {
    for (const response of this.#waiting) {
      response.write(`${JSON.stringify(end)}\n`)
      if (!stays) response.end()
    }
  }

  /**
   * Listens no more: the socket is gone. Whoever is connected is answered still. May be called
   * again.
   */
  async close(): Promise<void> {
    this.#leave?.()
    // It is called back only when the last connection is gone.
    this.#server.close()
    await Promise.resolve()
  }

  /** The same as {@link close}. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.close()
  }
}

/** Only who could end this process anyhow may ask anything. */
function take(socket: Socket): void {
  if (!isOurs(socket)) return void socket.destroy()
  socket.setTimeout(idleMs, () => socket.destroy())
}

/** Whether whoever connected is this user, or root, as the kernel noted it. */
export function isOurs(socket: Socket): boolean {
  const uid = userAt(socket)
  return uid !== undefined && (uid === 0 || uid === process.geteuid?.())
}

/** The user at the other end; not known where Node.js hides the descriptor. */
export function userAt(socket: Socket): number | undefined {
  const { _handle: handle } = socket as { _handle?: { readonly fd?: number } | null }
  return native.peerOf(handle?.fd ?? -1)?.uid
}
