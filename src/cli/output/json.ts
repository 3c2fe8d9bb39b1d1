import { destination, pino, stdTimeFunctions } from 'pino'
import { plainStats } from './plain-stats.js'
import type { Level, Output } from './output.js'

/** One JSON object a line, with `level`, `time`, `event` and `msg`, for programs. */
export function jsonOutput(level: Level): Output {
  const log = pino(
    {
      level,
      base: null,
      timestamp: stdTimeFunctions.isoTime,
      formatters: { level: (label) => ({ level: label }) },
    },
    // Written at once: a line must not be lost when the process is ended.
    destination({ dest: 1, sync: true }),
  )
  return {
    tell: (importance, facts, text) => log[importance](facts, text),
    figures: (figures) =>
      log.info({ event: 'stats', ...figures, stats: plainStats(figures.stats) }, 'statistics'),
    gone: () => {},
    end: () => {},
  }
}
