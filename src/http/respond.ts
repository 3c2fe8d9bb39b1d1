import type { IncomingMessage, ServerResponse } from 'node:http'

/** What a request is answered with: a whole, or what goes on until the client hangs up. */
export type Answer =
  | { readonly type: string; readonly body: string; readonly policy?: string }
  | { readonly type: string; readonly stream: (response: ServerResponse) => void }
  | { readonly refused: number; readonly why: string }

/** What is at a path. */
export type Page = (request: IncomingMessage, query: URLSearchParams) => Answer

/** What there is, by path. */
export type Pages = ReadonlyMap<string, Page>

/** Nothing that is served is to be kept, guessed at or framed. */
const guarded = {
  'cache-control': 'no-store',
  'x-content-type-options': 'nosniff',
  'content-security-policy': "default-src 'none'; frame-ancestors 'none'",
}

/**
 * Answers a request. GET and HEAD only look; what changes something is an action, asked for by POST,
 * and most endpoints have none. No body is read.
 */
export function respond(
  request: IncomingMessage,
  response: ServerResponse,
  pages: Pages,
  actions: Pages = new Map(),
): void {
  const { method = '', url = '' } = request
  const [path, query] = split(url)
  const looks = method === 'GET' || method === 'HEAD'
  const page = looks ? pages.get(path) : method === 'POST' ? actions.get(path) : undefined
  if (page === undefined) {
    if (looks && !actions.has(path)) {
      return refuse(response, 404, `Here are: ${[...pages.keys(), ...actions.keys()].join(' ')}`)
    }
    const allow = actions.has(path) ? 'POST' : 'GET, HEAD'
    return refuse(response, 405, `Only ${allow} is answered here`, { allow })
  }
  // A body is not read, so that nothing may follow it.
  const hasBody = request.headers['content-length'] ?? request.headers['transfer-encoding']
  const answer = page(request, query)
  if ('refused' in answer) return refuse(response, answer.refused, answer.why)
  if ('stream' in answer) {
    response.writeHead(200, { ...guarded, 'content-type': answer.type, connection: 'close' })
    if (method === 'HEAD') response.end()
    else answer.stream(response)
    return
  }
  const { type, body, policy } = answer
  response.writeHead(200, {
    ...guarded,
    ...(policy !== undefined && { 'content-security-policy': policy }),
    'content-type': type,
    'content-length': Buffer.byteLength(body),
    ...(hasBody !== undefined && { connection: 'close' }),
  })
  response.end(method === 'HEAD' ? undefined : body)
}

function split(url: string): [path: string, query: URLSearchParams] {
  const at = url.indexOf('?')
  return at < 0
    ? [url, new URLSearchParams()]
    : [url.slice(0, at), new URLSearchParams(url.slice(at + 1))]
}

function refuse(
  response: ServerResponse,
  status: number,
  text: string,
  headers: Readonly<Record<string, string>> = {},
): void {
  response.writeHead(status, {
    ...guarded,
    'content-type': 'text/plain; charset=utf-8',
    connection: 'close',
    ...headers,
  })
  response.end(`${text}\n`)
}
