import { abortSignal, milliseconds, object, optional, options as place } from '../validate.js'
import { readAnswer, refuseFailure } from './answer.js'
import { exchange, type Answer, type Method } from './connection.js'
import { underDeadline, type RequestOptions } from './deadline.js'

export const checkRequestOptions = object<RequestOptions>({
  signal: optional(abortSignal),
  timeoutMs: optional(milliseconds),
})

/** Requests to one socket: their deadlines, their answers, and the end of them all. */
export class Requests {
  readonly #socketPath: string
  readonly #timeoutMs: number
  readonly #closing = new AbortController()

  constructor(socketPath: string, timeoutMs: number) {
    this.#socketPath = socketPath
    this.#timeoutMs = timeoutMs
  }

  /** Asks for something; `read` makes it ours. */
  async get<T>(
    path: string,
    read: (body: unknown) => T,
    options: RequestOptions | undefined,
  ): Promise<T> {
    const answer = await this.#exchange('GET', path, undefined, options, this.#timeoutMs)
    return readAnswer(`GET ${path}`, answer, read)
  }

  /** Tells something; all the answer says is whether it was done. */
  async send(
    method: 'PUT' | 'PATCH',
    path: string,
    body: Record<string, unknown> | undefined,
    options: RequestOptions | undefined,
    timeoutMs = this.#timeoutMs,
  ): Promise<void> {
    refuseFailure(`${method} ${path}`, await this.#exchange(method, path, body, options, timeoutMs))
  }

  /** Ends what waits, and refuses what comes. */
  close(): void {
    this.#closing.abort()
  }

  #exchange(
    method: Method,
    path: string,
    body: Record<string, unknown> | undefined,
    options: RequestOptions = {},
    defaultTimeoutMs: number,
  ): Promise<Answer> {
    const { signal, timeoutMs = defaultTimeoutMs } = checkRequestOptions(options, place())
    const signals = { user: signal, client: this.#closing.signal }
    return underDeadline(`${method} ${path}`, timeoutMs, signals, (ending) =>
      exchange(this.#socketPath, method, path, body, ending),
    )
  }
}
