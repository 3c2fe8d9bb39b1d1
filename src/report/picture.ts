import type { MemoryPicture } from '#native'
import type { TraceEntry } from '../trace/entries.js'
import type { Entries } from './entries.js'

/** The states of a page in a picture, in the order of their shares. */
export const pictured = ['unfaulted', 'clean', 'zero', 'dirty', 'removed', 'poisoned'] as const

export type Pictured = (typeof pictured)[number]

/** Memory in cells of as many pages each. */
export interface Picture {
  readonly pagesPerCell: number
  /** Six bytes a cell: the shares of {@link pictured}, out of 255. */
  readonly shares: Uint8Array
}

/** A cell as it is drawn: the state that stands out, and how full of anything it is, from 0 to 1. */
export interface Cell {
  readonly state: Pictured
  readonly full: number
}

/** How a cell is drawn; `undefined` where the guest has no pages. */
export function cellAt({ shares }: Picture, cell: number): Cell | undefined {
  const [unfaulted = 0, ...others] = shares.subarray(6 * cell, 6 * cell + 6)
  const there = others.reduce((sum, share) => sum + share, 0)
  if (unfaulted + there === 0) return undefined
  // A poisoned page among a thousand is what somebody looks for.
  const rarest = others.findLastIndex((share) => share > 0)
  if (rarest === pictured.indexOf('poisoned') - 1) return { state: 'poisoned', full: 1 }
  const most = others.indexOf(Math.max(...others))
  const state = there === 0 ? 'unfaulted' : pictured[most + 1]!
  return { state, full: there / (unfaulted + there) }
}

export const cellCount = ({ shares }: Picture): number => shares.length / 6

/** The picture that the native part took. */
export const pictureOf = ({ pagesPerCell, shares }: MemoryPicture): Picture => ({
  pagesPerCell,
  shares,
})

/** How a touch is drawn: memory that was given back tells of itself, whatever it was touched for. */
export function stateOf({ write, filledWith }: Pick<TraceEntry, 'write' | 'filledWith'>): Pictured {
  if (filledWith === 'zeros') return 'removed'
  if (write) return 'dirty'
  return filledWith === 'source-zeros' ? 'zero' : 'clean'
}

/** The same of what a trace tells: the pages that were touched, by how they were first. */
export function pictureOfTouches(touches: Entries, pages: number, cells: number): Picture {
  const pagesPerCell = Math.max(1, Math.ceil(pages / cells))
  const count = Math.ceil(pages / pagesPerCell)
  const counts = new Float64Array(6 * count)
  for (let cell = 0; cell < count; cell++) {
    counts[6 * cell] = Math.min(pagesPerCell, pages - cell * pagesPerCell)
  }
  for (const { page, write, filledWith } of touches) {
    if (page >= pages) continue
    const at = 6 * Math.floor(page / pagesPerCell)
    const state = stateOf({ write, filledWith })
    counts[at]! -= 1
    counts[at + pictured.indexOf(state)]! += 1
  }
  const shares = Uint8Array.from(counts, (share, index) => {
    const own = Math.min(pagesPerCell, pages - Math.floor(index / 6) * pagesPerCell)
    return share === 0 ? 0 : Math.max(1, Math.floor((share * 255) / own))
  })
  return { pagesPerCell, shares }
}
