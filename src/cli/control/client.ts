import { once } from 'node:events'
import { statSync } from 'node:fs'
import { type IncomingMessage, request } from 'node:http'
import { connect, type Socket } from 'node:net'
import { userAt } from '../../control/endpoint.js'
import { UffdError } from '../../errors.js'
import { systemReason } from '../../system-error.js'

/** The longest answer that is read. */
const longestAnswer = 256 << 20

/** What is asked of a server. */
export interface Question {
  readonly control: string
  readonly method?: 'GET' | 'POST'
  readonly path: string
  /** How long the whole answer may take. */
  readonly timeoutMs: number
}

/**
 * Asks a server over its control socket; `take` is given each line of its answer, as JSON. Resolves
 * once it has answered, or has hung up after the line that `take` says was the last.
 */
export async function ask(
  { control, method = 'GET', path, timeoutMs }: Question,
  take: (line: unknown) => 'more' | 'last',
): Promise<void> {
  const deadline = AbortSignal.timeout(timeoutMs)
  const late = () => failure(control, `did not answer within ${timeoutMs} ms: it is frozen or busy`)
  let socket: Socket | undefined
  let isLast = false
  try {
    socket = await connected(control, deadline)
    const response = await asked(socket, method, path, deadline)
    await lines(response, control, (line) => {
      isLast = take(line) === 'last'
    })
  } catch (error) {
    if (error instanceof UffdError) throw error
    // Whose process has ended can only hang up.
    if (isLast && !deadline.aborted) return
    if (deadline.aborted) throw late()
    throw failure(control, `cannot be asked: ${reasonOf(error)}`, error)
  } finally {
    socket?.destroy()
  }
}

async function connected(control: string, signal: AbortSignal): Promise<Socket> {
  const socket = connect(control)
  try {
    await once(socket, 'connect', { signal })
  } catch (error) {
    socket.destroy()
    const { code } = error as NodeJS.ErrnoException
    // A file of another kind refuses connections as well.
    const isRefused = code === 'ECONNREFUSED'
    if (isRefused && statSync(control, { throwIfNoEntry: false })?.isSocket() === false) {
      throw failure(control, 'is no socket: give that of a server, which is PATH.control', error)
    }
    const hint = {
      ENOENT:
        'is not there: is the server running, and was it started with this --socket or --control?',
      ECONNREFUSED: "is nobody's any more: its server was killed",
      EACCES: 'is for the user of its server and for root: ask as one of them',
      ENOTSOCK: 'is no socket',
    }[code ?? '']
    if (hint === undefined) throw error
    throw failure(control, hint, error)
  }
  const uid = userAt(socket)
  const own = process.geteuid?.()
  // Another user may have put a server of its own there, and could tell anything.
  if (own !== 0 && uid !== 0 && uid !== own) {
    socket.destroy()
    throw failure(control, `is listened on by user ${uid}, and this is user ${own}`)
  }
  return socket
}

async function asked(
  socket: Socket,
  method: string,
  path: string,
  signal: AbortSignal,
): Promise<IncomingMessage> {
  const question = request({
    createConnection: () => socket,
    method,
    path,
    signal,
    headers: { host: 'localhost' },
  })
  question.end()
  const [response] = (await once(question, 'response')) as [IncomingMessage]
  // An error after the answer has begun is the response's to tell.
  question.on('error', () => {})
  return response
}

/** Reads an answer line by line; one that is a refusal is an error. */
async function lines(
  response: IncomingMessage,
  control: string,
  take: (line: unknown) => void,
): Promise<void> {
  let rest = ''
  let length = 0
  response.setEncoding('utf8')
  for await (const part of response as AsyncIterable<string>) {
    length += part.length
    if (length > longestAnswer) throw failure(control, 'answers without end')
    if (response.statusCode !== 200) {
      rest += part
      continue
    }
    const [first = '', ...others] = part.split('\n')
    rest += first
    for (const other of others) {
      take(parsed(rest, control))
      rest = other
    }
  }
  if (response.statusCode !== 200) {
    throw failure(control, `refused: ${printable(rest.trim())} (HTTP ${response.statusCode})`)
  }
  if (rest !== '') throw failure(control, 'answered in half a line')
}

function parsed(line: string, control: string): unknown {
  try {
    return JSON.parse(line, (_key, value: unknown) =>
      typeof value === 'string' ? printable(value) : value,
    )
  } catch (error) {
    throw failure(control, 'answered what is no JSON: it is no server of uffd-rs', error)
  }
}

/** What comes from elsewhere must not command the terminal. */
const printable = (text: string) => text.replaceAll(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu, '?')

const reasonOf = (error: unknown) =>
  ['ECONNRESET', 'EPIPE'].includes((error as NodeJS.ErrnoException).code ?? '')
    ? 'it hung up before it answered'
    : systemReason(error)

export function failure(control: string, why: string, cause?: unknown): UffdError {
  const options = cause === undefined ? undefined : { cause }
  return new UffdError('ERR_UFFD_CONTROL', `The control socket ${control} ${why}`, options)
}
