import { bytes } from '../numbers.js'
import { cellAt, cellCount, type Picture } from './picture.js'
import { rect, svg, text } from './svg.js'

/** Cells of a row. */
const columns = 128

/** How large a cell is drawn, and the room for addresses at the left. */
const size = 7
const margin = 64

/** How many cells a map has at most: 48 rows. */
export const mostCells = 48 * columns

/** Steps of fullness that are told apart. */
const steps = 4

/** The memory as rows of cells, in the order of the snapshot. */
export function mapOf(picture: Picture, pageSize: number, label: string): string {
  const rows = Math.ceil(cellCount(picture) / columns)
  const parts: string[] = []
  for (let row = 0; row < rows; row++) {
    if (row % 8 === 0) {
      const offset = row * columns * picture.pagesPerCell * pageSize
      parts.push(text(margin - 6, row * size + size, bytes(offset), 'axis', 'end'))
    }
    parts.push(...runs(picture, row))
  }
  return svg(margin + columns * size, rows * size, label, parts.join(''))
}

/** The cells of a row, with those that look alike drawn as one. */
function runs(picture: Picture, row: number): string[] {
  const parts: string[] = []
  let [start, kind] = [0, lookOf(picture, row * columns)]
  for (let column = 1; column <= columns; column++) {
    const next = column < columns ? lookOf(picture, row * columns + column) : undefined
    if (next === kind && column < columns) continue
    if (kind !== undefined) {
      parts.push(rect(margin + start * size, row * size, (column - start) * size, size - 1, kind))
    }
    start = column
    kind = next
  }
  return parts
}

function lookOf(picture: Picture, cell: number): string | undefined {
  const drawn = cell < cellCount(picture) ? cellAt(picture, cell) : undefined
  if (drawn === undefined) return undefined
  const { state, full } = drawn
  if (state === 'unfaulted') return 'unfaulted'
  return `${state} f${Math.max(1, Math.ceil(full * steps))}`
}
