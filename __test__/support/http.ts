import { spawnSync } from 'node:child_process'
import { request } from 'node:http'
import { connect, type NetConnectOpts } from 'node:net'
import type { ExecutionContext } from 'ava'

/** An answer over HTTP. */
export interface Answered {
  readonly status: number
  readonly headers: Readonly<Record<string, unknown>>
  readonly body: string
}

/** Asks for a path at `http://HOST:PORT` or `unix:PATH`. */
export function ask(
  url: string,
  path: string,
  {
    method = 'GET',
    headers = {},
    body,
  }: { method?: string; headers?: Record<string, string>; body?: string } = {},
): Promise<Answered> {
  const at = url.startsWith('unix:')
    ? { socketPath: url.slice('unix:'.length) }
    : { host: new URL(url).hostname.replace(/^\[|\]$/g, ''), port: new URL(url).port }
  return new Promise((resolve, reject) => {
    const asked = request({ ...at, path, method, headers, agent: false }, (response) => {
      let text = ''
      response.setEncoding('utf8').on('data', (part: string) => (text += part))
      response.on('end', () => {
        resolve({ status: response.statusCode!, headers: response.headers, body: text })
      })
      response.on('error', reject)
    })
    asked.on('error', reject)
    asked.end(body)
  })
}

/** A thousand connections at once, gone after the test; returns how to hang up. */
export function crowd(t: ExecutionContext, at: NetConnectOpts): () => void {
  const sockets = Array.from({ length: 1000 }, () => connect(at).on('error', () => {}))
  const hangUp = () => {
    for (const socket of sockets) socket.destroy()
  }
  t.teardown(hangUp)
  return hangUp
}

/** Asks until there is an answer: connections that are closed are noticed one after the other. */
export async function answersAt(url: string, page: string): Promise<void> {
  for (;;) {
    const answered = await ask(url, page).catch(() => undefined)
    if (answered?.status === 200) return
  }
}

const listenAndDie = `
  require('node:net').createServer().listen(process.argv[1], () => {
    process.kill(process.pid, 'SIGKILL')
  })`

/** Leaves a socket that nobody listens on: the process that did was killed. */
export function leaveSocket(path: string): void {
  const { signal } = spawnSync(process.execPath, ['-e', listenAndDie, path])
  if (signal !== 'SIGKILL') throw new Error('the process that was to leave a socket was not killed')
}
