import type { Option } from './option.js'
import { UsageError } from './usage-error.js'

const units = new Map([
  ['ms', 1],
  ['s', 1000],
  ['m', 60_000],
  ['h', 3_600_000],
])

/** The longest time a timer of Node.js can wait, and so any option here. */
const longest = 2 ** 31 - 1

/** A time in milliseconds, from a number with its unit: `500ms`, `1.5s`, `2m`. */
export function milliseconds(text: string): number {
  return read(text, '')
}

/** The same where a word can be given instead, which is not read here. */
export function millisecondsOr(word: string, text: string): number {
  return read(text, `, or ${word}`)
}

function read(text: string, or: string): number {
  const [, number, unit = ''] = /^(\d+(?:\.\d+)?)([a-z]*)$/.exec(text) ?? []
  const factor = units.get(unit)
  if (number === undefined || factor === undefined) {
    throw new UsageError(`must be a time with its unit, such as 500ms, 1.5s or 2m${or}`)
  }
  const time = Number(number) * factor
  if (!Number.isInteger(time) || time < 1 || time > longest) {
    throw new UsageError(`must be whole milliseconds, at least 1ms and less than 25 days${or}`)
  }
  return time
}

export function duration(about: Pick<Option<unknown>, 'help' | 'default'>) {
  return {
    takes: 'TIME',
    ...about,
    read: milliseconds,
    absent: undefined,
  } satisfies Option<number | undefined> as Option<number | undefined>
}
