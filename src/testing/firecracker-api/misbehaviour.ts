import type { ServerResponse } from 'node:http'
import type { Socket } from 'node:net'

/** Ways to answer that Firecracker does not have, or only when something is wrong. */
export type Misbehaviour =
  /** Never answers. The server takes no other request meanwhile. */
  | 'hang'
  /** Hangs up without a byte. */
  | 'hang up'
  /** Hangs up in the middle of the status line and headers. */
  | 'cut in the headers'
  /** Promises more body than it sends. */
  | 'cut in the body'
  /** Promises more body than it sends, and stays connected. */
  | 'stall in the body'
  /** Answers with bytes that are not HTTP. */
  | 'garbage'
  /** Answers 200 with a body that is not JSON. */
  | 'not JSON'
  /** Answers 200 with a body without end. */
  | 'endless'
  /** Answers 200 with these fields, one byte at a time. */
  | { readonly slowly: unknown }
  /** Answers this status with this text. */
  | { readonly status: number; readonly text: string }

const partialBody = '{"firecracker_'
const headers = 'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n'

export async function misbehave(
  how: Misbehaviour,
  socket: Socket,
  response: ServerResponse,
): Promise<void> {
  if (typeof how === 'object') {
    if ('slowly' in how) return sendSlowly(socket, JSON.stringify(how.slowly))
    response.statusCode = how.status
    response.end(how.text)
    return
  }
  switch (how) {
    case 'hang':
      return closed(socket)
    case 'hang up':
      socket.destroy()
      return
    case 'cut in the headers':
      socket.end(headers.slice(0, 30))
      return
    case 'cut in the body':
      socket.end(`${headers}Content-Length: 1000\r\n\r\n${partialBody}`)
      return
    case 'stall in the body':
      socket.write(`${headers}Content-Length: 1000\r\n\r\n${partialBody}`)
      return closed(socket)
    case 'garbage':
      socket.end('SSH-2.0-OpenSSH_9.9\r\n')
      return
    case 'not JSON':
      response.end(partialBody)
      return
    case 'endless':
      return sendEndlessly(socket)
  }
}

function closed(socket: Socket): Promise<void> {
  if (socket.closed) return Promise.resolve()
  return new Promise((resolve) => {
    socket.once('close', () => resolve())
  })
}

async function sendSlowly(socket: Socket, text: string): Promise<void> {
  const bytes = `${headers}Content-Length: ${text.length}\r\n\r\n${text}`
  for (const byte of bytes) {
    await new Promise((resolve) => {
      socket.write(byte, resolve)
    })
  }
}

async function sendEndlessly(socket: Socket): Promise<void> {
  const chunk = Buffer.alloc(64 * 1024, ' ')
  socket.on('error', () => {})
  socket.write(`${headers}Content-Length: ${2 ** 40}\r\n\r\n`)
  while (!socket.destroyed) {
    if (!socket.write(chunk)) {
      await new Promise<void>((resolve) => {
        socket.once('drain', resolve)
        socket.once('close', resolve)
      })
    }
  }
}
