import { type Region } from '#native'
import { type PageRange } from '../page-range.js'
import { type Place } from '../place.js'
import { show } from '../show.js'
import { Trace } from '../trace/trace.js'

/**
 * Which pages are meant, in the order they are wanted: those of a trace (see {@link Trace.pages}),
 * pages and ranges of pages, or `'all'`.
 */
export type Pages = 'all' | Trace | Iterable<number | PageRange>

/** More pages than this no guest has: 16 TiB of 4 KiB pages. */
const most = 2 ** 32

/** Pairs of a first page and the page after the last. Pages that follow each other are joined. */
export function pageRanges(pages: Pages, regions: readonly Region[], at: Place): Float64Array {
  const pairs: number[] = []
  const add = (start: number, end: number) => {
    if (pairs.length > 0 && pairs.at(-1) === start) pairs[pairs.length - 1] = end
    else if (start < end) pairs.push(start, end)
  }
  if (pages === 'all') {
    for (const { firstPage, pageCount } of regions) add(firstPage, firstPage + pageCount)
  } else if (pages instanceof Trace) {
    for (const { start, end } of pages.pages) add(start, end)
  } else {
    let index = 0
    for (const item of iterable(pages, at)) addItem(item, at.item(index++), add)
  }
  return Float64Array.from(pairs)
}

function iterable(pages: unknown, at: Place): Iterable<unknown> {
  const isIterable = typeof pages === 'object' && pages !== null && Symbol.iterator in pages
  if (!isIterable) at.expected('"all", a trace, or an iterable of pages and ranges', pages)
  return pages as Iterable<unknown>
}

function addItem(item: unknown, at: Place, add: (start: number, end: number) => void): void {
  if (typeof item === 'number') {
    if (!isPage(item) || item === most) at.expected(`a page: a whole number below 2^32`, item)
    return add(item, item + 1)
  }
  const { start, end } = (item ?? {}) as Partial<PageRange>
  if (!isPage(start) || !isPage(end) || start > end) {
    const shown = `{ start: ${show(start)}, end: ${show(end)} }`
    const isRange = typeof item === 'object' && item !== null
    at.expected('a page, or a range of pages', item, isRange ? shown : show(item))
  }
  add(start, end)
}

function isPage(value: unknown): value is number {
  return Number.isInteger(value) && (value as number) >= 0 && (value as number) <= most
}
