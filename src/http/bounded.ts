import { createServer, type RequestListener, type Server as HttpServer } from 'node:http'

/** Connections at once; more are closed before a byte of theirs is read. */
const mostConnections = 64

/** How long a client may take: with its headers, with a request, and doing nothing. */
const patienceMs = { headers: 5_000, request: 10_000, idle: 5_000 }

/** Bytes of a request's headers. */
const mostHeaderBytes = 8 << 10

/** An HTTP server that bounds what a client can take, and keeps no process alive. */
export function boundedServer(answer: RequestListener): HttpServer {
  const server = createServer(
    {
      headersTimeout: patienceMs.headers,
      requestTimeout: patienceMs.request,
      keepAliveTimeout: patienceMs.idle,
      connectionsCheckingInterval: 1_000,
      maxHeaderSize: mostHeaderBytes,
    },
    answer,
  )
  server.maxConnections = mostConnections
  // A client that goes away, or sends what is no HTTP, is answered by nobody.
  server.on('clientError', (_error, socket) => socket.destroy())
  server.on('connection', (socket) => socket.unref())
  return server.unref()
}
