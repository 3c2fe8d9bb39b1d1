import { clearScreenDown, moveCursor } from 'node:readline'
import type { WriteStream } from 'node:tty'
import type { GuestFigures } from './figures.js'
import { type Level, levels, type Output } from './output.js'
import { figuresLine, table } from './table.js'
import { hasColours, isLive, room } from './terminal.js'

const colours = { debug: 2, info: undefined, warn: 33, error: 31 } as const

/** Figures of many guests that come together make one picture. */
const redrawAfterMs = 50

/** Lines for people; on a terminal with a table below them that is kept up to date. */
export function humanOutput(level: Level, stream: WriteStream = process.stdout): Output {
  const least = levels.indexOf(level)
  const chatty = least <= levels.indexOf('info')
  const guests = new Map<number, GuestFigures>()
  let shown = 0
  let redraw: NodeJS.Timeout | undefined

  const clear = () => {
    if (shown > 0) {
      moveCursor(stream, 0, -shown)
      clearScreenDown(stream)
    }
    shown = 0
  }
  const draw = () => {
    const lines = isLive(stream) && chatty ? table([...guests.values()], room(stream)) : []
    for (const line of lines) stream.write(`${line}\n`)
    shown = lines.length
  }

  return {
    tell: (importance, _facts, text) => {
      if (levels.indexOf(importance) < least) return
      clear()
      stream.write(`${coloured(text, hasColours(stream) ? colours[importance] : undefined)}\n`)
      draw()
    },
    figures: (figures) => {
      guests.set(figures.guest, figures)
      if (!isLive(stream)) {
        if (chatty) stream.write(`${figuresLine(figures)}\n`)
        return
      }
      redraw ??= setTimeout(() => {
        redraw = undefined
        clear()
        draw()
      }, redrawAfterMs)
    },
    gone: (guest) => guests.delete(guest),
    end: () => {
      clearTimeout(redraw)
      clear()
    },
  }
}

function coloured(text: string, colour: number | undefined): string {
  return colour === undefined ? text : `\u001B[${colour}m${text}\u001B[0m`
}
