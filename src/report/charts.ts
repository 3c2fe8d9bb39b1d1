import type { Measured } from '../metrics/table.js'
import { bytes, micros, several, whole } from '../numbers.js'
import type { Entries } from './entries.js'
import { type Pictured, stateOf } from './picture.js'
import { rect, svg, text } from './svg.js'

const width = 960
const margin = { left: 64, right: 8, top: 8, bottom: 20 }
const inner = width - margin.left - margin.right

/** Cells of the picture of touches. */
const grid = { columns: 240, rows: 100 }

/** First touches over time and over the snapshot, as a picture of where they were when. */
export function touchesChart(touches: Entries, pages: number, pageSize: number): string {
  const span = Math.max(1, (touches.at(touches.length - 1)?.timeMicros ?? 0) * 1.0001)
  const touched = new Map<number, Map<Pictured, number>>()
  for (const { page, timeMicros, ...how } of touches) {
    const column = Math.min(grid.columns - 1, Math.floor((timeMicros / span) * grid.columns))
    const row = Math.min(grid.rows - 1, Math.floor((page / pages) * grid.rows))
    const cell = touched.get(row * grid.columns + column) ?? new Map<Pictured, number>()
    const state = stateOf(how)
    cell.set(state, (cell.get(state) ?? 0) + 1)
    touched.set(row * grid.columns + column, cell)
  }
  const sizes = [...touched].map(([at, cell]) => {
    const [state] = [...cell].reduce((most, other) => (other[1] > most[1] ? other : most))
    return { at, state, count: [...cell.values()].reduce((sum, count) => sum + count, 0) }
  })
  const most = sizes.reduce((largest, { count }) => Math.max(largest, count), 1)
  const height = 300
  const [cellWidth, cellHeight] = [inner / grid.columns, height / grid.rows]
  const cells = sizes.map(({ at, state, count }) => {
    const x = margin.left + (at % grid.columns) * cellWidth
    const y = margin.top + Math.floor(at / grid.columns) * cellHeight
    return rect(x, y, cellWidth, cellHeight, `${state} f${Math.ceil((4 * count) / most)}`)
  })
  const bottom = margin.top + height
  const axes = [
    rect(margin.left, margin.top, inner, height, 'frame'),
    text(margin.left - 6, margin.top + 10, '0', 'axis', 'end'),
    text(margin.left - 6, bottom, bytes(pages * pageSize), 'axis', 'end'),
    text(margin.left, bottom + 14, 'handoff'),
    text(width - margin.right, bottom + 14, micros(span), 'axis', 'end'),
  ]
  const label = `${several(touches.length, 'first touch', 'first touches')} over time and memory`
  return svg(width, bottom + margin.bottom, label, [...axes, ...cells].join(''))
}

/** How many faults took how long: a bar a bucket. */
export function latencyChart({ bounds, samples }: Measured): string {
  const counts = [...bounds, Infinity].map((_, bucket) =>
    samples.reduce((sum, sample) => sum + (sample.counts?.[bucket] ?? 0), 0),
  )
  const first = Math.max(0, counts.findIndex((count) => count > 0) - 1)
  const last = counts.findLastIndex((count) => count > 0) + 1
  const shown = counts.slice(first, Math.max(first + 1, last))
  const most = Math.max(1, ...shown)
  const height = 160
  const bar = inner / shown.length
  const bars = shown.map((count, index) => {
    const tall = (height - 14) * (count / most)
    const x = margin.left + index * bar
    const y = margin.top + height - tall
    const bound = bounds[first + index]
    const under = bound === undefined ? 'longer' : `≤ ${micros(bound * 1e6)}`
    return (
      rect(x + 1, y, bar - 2, tall, 'bar') +
      (count > 0 ? text(x + bar / 2, y - 3, whole(count), 'axis', 'middle') : '') +
      text(x + bar / 2, margin.top + height + 14, under, 'axis', 'middle')
    )
  })
  return svg(
    width,
    margin.top + height + margin.bottom,
    'How many faults took how long',
    bars.join(''),
  )
}
