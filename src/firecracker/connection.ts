import { Client, type Dispatcher } from 'undici'
import { FirecrackerError } from './errors.js'
import { transportError } from './transport-error.js'

export type Method = 'GET' | 'PUT' | 'PATCH'

export interface Answer {
  readonly status: number
  readonly text: string
}

/** More than any answer of the API has; a peer that sends more is not Firecracker. */
const longestAnswer = 1024 * 1024

/**
 * One request over a connection of its own. The API is not called often, and a
 * kept connection could turn out dead only when the next request is already on
 * it: then nobody knows whether that one was carried out. Nothing is repeated.
 */
export async function exchange(
  socketPath: string,
  method: Method,
  path: string,
  body: Record<string, unknown> | undefined,
  signal: AbortSignal,
): Promise<Answer> {
  const client = new Client('http://localhost', {
    connect: { socketPath, timeout: 0 },
    headersTimeout: 0,
    bodyTimeout: 0,
    pipelining: 0,
  })
  const request = `${method} ${path}`
  let response: Dispatcher.ResponseData | undefined
  try {
    response = await client.request({
      method,
      path,
      signal,
      headers: { accept: 'application/json', ...(body && { 'content-type': 'application/json' }) },
      body: body === undefined ? null : JSON.stringify(body),
    })
    return { status: response.statusCode, text: await readText(request, response.body) }
  } catch (error) {
    throw transportError(request, socketPath, error, response !== undefined)
  } finally {
    await client.destroy()
  }
}

async function readText(request: string, body: AsyncIterable<Buffer>): Promise<string> {
  const chunks: Buffer[] = []
  let length = 0
  for await (const chunk of body) {
    length += chunk.length
    if (length > longestAnswer) {
      throw new FirecrackerError(
        'ERR_UFFD_FIRECRACKER_BAD_ANSWER',
        request,
        `the answer is longer than ${longestAnswer} bytes; is this socket Firecracker's?`,
      )
    }
    chunks.push(chunk)
  }
  return Buffer.concat(chunks).toString('utf8')
}
