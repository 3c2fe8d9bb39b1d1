import { readFile } from 'node:fs/promises'
import { type EndReason, UffdError } from '../../index.js'
import type { PlainStats } from '../../report/facts.js'

/** The end of a guest, as the command tells of it in JSON lines. */
export interface EndEvent {
  readonly event: 'end'
  readonly reason: EndReason
  readonly msg: string
  readonly stats: PlainStats
}

/** The last end of a guest in the command's output. */
export async function lastEndIn(path: string): Promise<EndEvent> {
  const text = await readFile(path, 'utf8').catch((error: Error) => {
    throw refused(path, error.message, error)
  })
  const ends = text.split('\n').flatMap((line) => {
    const event = parsed(line)
    return isEnd(event) ? [event] : []
  })
  const last = ends.at(-1)
  if (last === undefined) throw refused(path, 'no line of it tells of the end of a guest')
  return last
}

/** A line of JSON; what is none is somebody else's output. */
function parsed(line: string): unknown {
  try {
    return JSON.parse(line) as unknown
  } catch {
    return undefined
  }
}

function isEnd(value: unknown): value is EndEvent {
  const { event, reason, stats } = (value ?? {}) as Partial<EndEvent>
  const { pages, latency, uptimeMs, faults } = (stats ?? {}) as Partial<PlainStats>
  return (
    event === 'end' &&
    typeof reason === 'string' &&
    typeof uptimeMs === 'number' &&
    typeof faults === 'number' &&
    typeof pages === 'object' &&
    typeof latency === 'object'
  )
}

function refused(path: string, why: string, cause?: unknown): UffdError {
  return new UffdError('ERR_UFFD_REPORT', `Cannot take statistics from ${path}: ${why}`, { cause })
}
