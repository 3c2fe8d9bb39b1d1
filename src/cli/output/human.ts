import type { WriteStream } from 'node:tty'
import type { GuestFigures } from './figures.js'
import { type Level, levels, type Output } from './output.js'
import { figuresLine, table } from './table.js'
import { hasColours, heightOf, isLive, refreshSize, room } from './terminal.js'

const colours = { debug: 2, info: undefined, warn: 33, error: 31 } as const

/** Figures of many guests that come together make one picture. */
const redrawAfterMs = 50

/** Lines for people; on a terminal with a table below them that is kept up to date. */
export function humanOutput(level: Level, stream: WriteStream = process.stdout): Output {
  const least = levels.indexOf(level)
  const chatty = least <= levels.indexOf('info')
  const guests = new Map<number, GuestFigures>()
  let shown: readonly string[] = []
  let redraw: NodeJS.Timeout | undefined

  /** Writes lines in the table's place, and the table below them, at once. */
  const write = (lines: string) => {
    refreshSize(stream)
    const rows = isLive(stream) && chatty ? table([...guests.values()], room(stream)) : []
    const gone = shown.length === 0 ? '' : `\u001B[${heightOf(shown, stream)}A\r\u001B[J`
    shown = rows
    const text = [gone, lines, ...rows.map((row) => `${row}\n`)].join('')
    if (text !== '') stream.write(text)
  }
  const redrawSoon = () => {
    redraw ??= setTimeout(() => {
      redraw = undefined
      write('')
    }, redrawAfterMs)
  }
  const end = () => {
    clearTimeout(redraw)
    stream.off('resize', redrawSoon)
    process.off('exit', end)
    guests.clear()
    write('')
  }
  stream.on('resize', redrawSoon)
  // A second signal ends the process at once, and leaves the terminal to whoever comes next.
  process.on('exit', end)

  return {
    tell: (importance, _facts, text) => {
      if (levels.indexOf(importance) < least) return
      write(`${coloured(text, hasColours(stream) ? colours[importance] : undefined)}\n`)
    },
    figures: (figures) => {
      guests.set(figures.guest, figures)
      if (isLive(stream)) redrawSoon()
      else if (chatty) stream.write(`${figuresLine(figures)}\n`)
    },
    gone: (guest) => {
      guests.delete(guest)
    },
    end,
  }
}

function coloured(text: string, colour: number | undefined): string {
  return colour === undefined ? text : `\u001B[${colour}m${text}\u001B[0m`
}
