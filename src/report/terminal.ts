import { bytes, several } from '../numbers.js'
import { cellAt, cellCount, type Picture } from './picture.js'

const columns = 64

/** The most rows, so that a map fits a screen. */
const rows = 32

/** How many cells a map has at most. */
export const mostTerminalCells = columns * rows

/** From nothing to all of the pages of a cell. */
const shades = ['·', '░', '▒', '▓', '█']

/** Memory as lines of characters, each as dark as so many of its pages were touched. */
export function terminalMap(picture: Picture, pageSize: number): string[] {
  const lines: string[] = []
  const perRow = columns * picture.pagesPerCell * pageSize
  for (let first = 0; first < cellCount(picture); first += columns) {
    const cells = Array.from({ length: columns }, (_, column) => {
      const cell = first + column < cellCount(picture) ? cellAt(picture, first + column) : undefined
      if (cell === undefined) return ' '
      return shades[Math.ceil(cell.full * (shades.length - 1))]!
    })
    const offset = bytes((first / columns) * perRow).padStart(10)
    lines.push(`${offset}  ${cells.join('')}`.trimEnd())
  }
  const step = several(picture.pagesPerCell, 'page')
  lines.push(`${' '.repeat(12)}each character ${step}: ${shades[0]} none … ${shades.at(-1)} all`)
  return lines
}
