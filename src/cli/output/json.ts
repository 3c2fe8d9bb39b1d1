import { destination, pino, stdTimeFunctions } from 'pino'
import { plainStats } from './plain-stats.js'
import type { Level, Output } from './output.js'

/** Bytes kept while they cannot be written; lines beyond that are lost. */
const mostUnwritten = 1 << 20

/** One JSON object a line, with `level`, `time`, `event` and `msg`, for programs. */
export function jsonOutput(level: Level): Output {
  // Written at once: a line must not be lost when the process is ended.
  const lines = destination({ dest: 1, sync: true, maxLength: mostUnwritten })
  // A full disk must not end the guests. What was not written is tried again with the next line.
  lines.on('error', () => {})
  const log = pino(
    {
      level,
      base: null,
      timestamp: stdTimeFunctions.isoTime,
      formatters: { level: (label) => ({ level: label }) },
    },
    lines,
  )
  return {
    tell: (importance, facts, text) => log[importance](facts, text),
    figures: (figures) =>
      log.info({ event: 'stats', ...figures, stats: plainStats(figures.stats) }, 'statistics'),
    gone: () => {},
    end: () => {},
  }
}
