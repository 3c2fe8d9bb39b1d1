import type { WriteStream } from 'node:tty'
import type { Room } from './table.js'

/** Whether colours are wanted there: not in a file, nor with NO_COLOR. */
export const hasColours = (stream: WriteStream): boolean => stream.isTTY && stream.hasColors()

/** Whether what was written can be written over. */
export const isLive = (stream: WriteStream): boolean =>
  stream.isTTY && process.env['TERM'] !== 'dumb'

/**
 * Whether a terminal that was made narrower lays out anew what it shows. All do that are in use, but
 * for those that say who they are.
 */
const reflows = ({ TERM = '', TMUX, XTERM_VERSION }: NodeJS.ProcessEnv): boolean =>
  TMUX !== undefined || (XTERM_VERSION === undefined && !/^(?:linux|rxvt|screen)/.test(TERM))

/** How many rows these lines take up, which fitted when they were written. */
export function heightOf(lines: readonly string[], stream: WriteStream): number {
  if (!reflows(process.env)) return lines.length
  const { columns, rows } = room(stream)
  const height = lines.reduce(
    (sum, { length }) => sum + Math.max(1, Math.ceil(length / columns)),
    0,
  )
  // What was scrolled away is out of reach.
  return Math.min(height, rows - 1)
}

/**
 * Asks the kernel for the size of a terminal anew. Node.js learns of a change by a signal, which may
 * come after something was written for the old size.
 */
export function refreshSize(stream: WriteStream): void {
  const { _refreshSize: refresh } = stream as { _refreshSize?: () => void }
  if (isLive(stream) && !stream.destroyed) refresh?.call(stream)
}

/** How much room there is; a terminal that does not know says 0. */
export const room = ({ columns, rows }: WriteStream): Room => {
  return { columns: columns || 80, rows: rows || 24 }
}
