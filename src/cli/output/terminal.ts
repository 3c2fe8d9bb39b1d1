import type { WriteStream } from 'node:tty'
import type { Room } from './table.js'

/** Whether colours are wanted there: not in a file, nor with NO_COLOR. */
export const hasColours = (stream: WriteStream): boolean => stream.isTTY && stream.hasColors()

/** Whether what was written can be written over. */
export const isLive = (stream: WriteStream): boolean =>
  stream.isTTY && process.env['TERM'] !== 'dumb'

/** How much room there is; a terminal that does not know says 0. */
export const room = ({ columns, rows }: WriteStream): Room => {
  return { columns: columns || 80, rows: rows || 24 }
}
