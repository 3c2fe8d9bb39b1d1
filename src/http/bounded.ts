import {
  createServer,
  type RequestListener,
  type Server as HttpServer,
  type ServerResponse,
} from 'node:http'
import { warn } from '../warn.js'

/** Connections at once; more are closed before a byte of theirs is read. */
const mostConnections = 64

/** How long a client may take: with its headers, with a request, and doing nothing. */
const patienceMs = { headers: 5_000, request: 10_000, idle: 5_000 }

/** Bytes of a request's headers. */
const mostHeaderBytes = 8 << 10

/**
 * An HTTP server that bounds what a client can take, and keeps no process alive. Nor does a defect in
 * what it shows end one: guests depend on it.
 */
export function boundedServer(answer: RequestListener): HttpServer {
  const server = createServer(
    {
      headersTimeout: patienceMs.headers,
      requestTimeout: patienceMs.request,
      keepAliveTimeout: patienceMs.idle,
      connectionsCheckingInterval: 1_000,
      maxHeaderSize: mostHeaderBytes,
    },
    (request, response) => {
      try {
        answer(request, response)
      } catch (error) {
        fail(response, error)
      }
    },
  )
  server.maxConnections = mostConnections
  // A client that goes away, or sends what is no HTTP, is answered by nobody.
  server.on('clientError', (_error, socket) => socket.destroy())
  server.on('connection', (socket) => socket.unref())
  return server.unref()
}

/** Says that there is no answer, and whose fault it is. */
function fail(response: ServerResponse, error: unknown): void {
  warn(`A request cannot be answered: ${String(error)}`, 'ERR_UFFD_INTERNAL')
  if (response.headersSent) return void response.destroy()
  response.writeHead(500, { 'content-type': 'text/plain', connection: 'close' })
  response.end(
    'This cannot be answered: it is a defect of uffd-rs, which its process has warned of\n',
  )
}
