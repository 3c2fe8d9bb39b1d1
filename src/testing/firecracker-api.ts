import { once } from 'node:events'
import { mkdtemp, rename, rm } from 'node:fs/promises'
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Fault, readBody } from './firecracker-api/body.js'
import { MicroVm, type Hooks, type SnapshotContents } from './firecracker-api/microvm.js'
import { misbehave, type Misbehaviour } from './firecracker-api/misbehaviour.js'
import {
  endpoints,
  minorOf,
  type Endpoint,
  type JsonObject,
  type Route,
} from './firecracker-api/published.js'

export interface FirecrackerApiOptions extends Hooks {
  /** The version it plays, 1.10 to 1.17; a suffix is passed on. @default '1.16.1' */
  readonly version?: string
  /** What the snapshot holds that is loaded. */
  readonly snapshot?: SnapshotContents
  /** Routes that are answered wrongly. */
  readonly misbehave?: Partial<Record<Route, Misbehaviour>>
}

/** A request as it arrived. */
export interface SeenRequest {
  /** Its method and path: `PUT /snapshot/load`. */
  readonly route: string
  /** The parsed body; undefined if there was none or it was not JSON. */
  readonly body: JsonObject | undefined
  /** Its headers, with names in lower case. */
  readonly headers: IncomingMessage['headers']
}

/**
 * Firecracker's API as published, over a Unix socket of its own. Requests are
 * carried out one after the other, as Firecracker does: while one hangs, all do.
 */
export class FirecrackerApi {
  readonly #server: Server
  readonly #directory: string
  readonly #minor: number
  readonly #options: FirecrackerApiOptions
  readonly #arrivals = new Map<string, (() => void)[]>()
  #turn: Promise<void> = Promise.resolve()
  #exit: Promise<void> | undefined

  readonly socketPath: string
  readonly vm: MicroVm
  /** Every request so far, in order. */
  readonly requests: SeenRequest[] = []

  private constructor(directory: string, options: FirecrackerApiOptions) {
    const { version = '1.16.1', snapshot = {} } = options
    this.#options = options
    this.#directory = directory
    this.#minor = minorOf(version)
    this.socketPath = join(directory, 'firecracker.sock')
    this.vm = new MicroVm(version, options, snapshot)
    this.#server = createServer((request, response) => {
      this.#turn = this.#turn.then(() => this.#serve(request, response)).catch(() => {})
    })
  }

  static async start(options: FirecrackerApiOptions = {}): Promise<FirecrackerApi> {
    const api = new FirecrackerApi(await mkdtemp(join(tmpdir(), 'uffd-api-')), options)
    api.#server.listen(api.socketPath)
    await once(api.#server, 'listening')
    return api
  }

  /** Starts the guest, as PUT /actions with InstanceStart does. */
  boot(): this {
    this.vm.state = 'Running'
    return this
  }

  /** Resolves when a request of this route is there, whether or not it is ever answered. */
  arrived(route: Route): Promise<void> {
    if (this.requests.some((seen) => seen.route === route)) return Promise.resolve()
    return new Promise((resolve) => {
      this.#arrivals.set(route, [...(this.#arrivals.get(route) ?? []), resolve])
    })
  }

  /** The bodies of all requests of one route. */
  bodies(route: Route): (JsonObject | undefined)[] {
    return this.requests.filter((seen) => seen.route === route).map(({ body }) => body)
  }

  /** Ends as a killed process does: connections break, the socket file stays behind. */
  exit(): Promise<void> {
    this.#exit ??= this.#end()
    return this.#exit
  }

  async #end(): Promise<void> {
    const stale = `${this.socketPath}.stale`
    await rename(this.socketPath, stale)
    await this.#closeServer()
    await rename(stale, this.socketPath)
  }

  async close(): Promise<void> {
    await this.#closeServer()
    await rm(this.#directory, { recursive: true, force: true })
  }

  async #closeServer(): Promise<void> {
    if (!this.#server.listening) return
    const closed = once(this.#server, 'close')
    this.#server.close()
    this.#server.closeAllConnections()
    await closed
  }

  async #serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const route = `${request.method} ${request.url}`
    const text = await readAll(request)
    this.requests.push({ route, body: tryParse(text), headers: request.headers })
    for (const resolve of this.#arrivals.get(route) ?? []) resolve()
    const wrong = this.#options.misbehave?.[route as Route]
    if (wrong !== undefined) return misbehave(wrong, request.socket, response)
    try {
      refuseHttp(request)
      const endpoint = this.#endpoint(route)
      const body = this.#read(endpoint, text)
      const answer = await this.vm.handle(route as Route, body)
      send(response, endpoint.success(this.#minor), answer)
    } catch (error) {
      const message = error instanceof Error ? error.message : String(error)
      send(response, 400, { fault_message: message })
      if (route === 'PUT /snapshot/load' && !(error instanceof Fault))
        await this.#dieAfter(response)
    }
  }

  /** A snapshot that could not be loaded ends the process, once it has said why. */
  async #dieAfter(response: ServerResponse): Promise<void> {
    if (!response.writableFinished && !response.closed) {
      await Promise.race([once(response, 'finish'), once(response, 'close')])
    }
    await this.exit()
  }

  #endpoint(route: string): Endpoint {
    const known: Endpoint | undefined = Object.hasOwn(endpoints, route)
      ? endpoints[route as Route]
      : undefined
    if (known === undefined || (known.since ?? 0) > this.#minor) {
      throw new Fault(`No such method and path: ${route}.`)
    }
    const started = this.vm.state !== 'Not started'
    if (known.beforeBoot && started) throw new Fault('Not supported after the microVM started.')
    if (known.afterBoot && !started) throw new Fault('Not supported before the microVM started.')
    return known
  }

  #read({ body, bodyOptional }: Endpoint, text: string): JsonObject {
    if (text === '' && (body === undefined || bodyOptional)) return {}
    if (body === undefined) throw new Fault('This request has no body.')
    return readBody(text, body, this.#minor)
  }
}

/** The most bytes of a body that Firecracker takes, unless told otherwise when it is started. */
const longestBody = 51_200

/** Refuses what Firecracker's small HTTP server does not understand: it would wait, or misread. */
function refuseHttp({ headers, method }: IncomingMessage): void {
  const length = Number(headers['content-length'] ?? 0)
  if (headers['transfer-encoding'] !== undefined) throw new Fault('A body needs a known length.')
  if (headers.expect !== undefined) throw new Fault('Nothing is expected of this server.')
  if (length > longestBody) throw new Fault(`The body has ${length} bytes, ${longestBody} at most.`)
  if (method === 'GET' && length > 0) throw new Fault('This request has no body.')
}

async function readAll(request: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = []
  for await (const chunk of request as AsyncIterable<Buffer>) chunks.push(chunk)
  return Buffer.concat(chunks).toString('utf8')
}

function tryParse(text: string): JsonObject | undefined {
  try {
    return JSON.parse(text) as JsonObject
  } catch {
    return undefined
  }
}

function send(response: ServerResponse, status: number, body: JsonObject | undefined): void {
  response.statusCode = status
  response.sendDate = false
  response.setHeader('server', 'Firecracker API')
  // Whatever the client says: it has to hang up by itself.
  response.setHeader('connection', 'keep-alive')
  if (body === undefined) {
    response.end()
  } else {
    response.setHeader('content-type', 'application/json')
    response.end(JSON.stringify(body))
  }
}
