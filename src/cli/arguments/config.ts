import { readFileSync } from 'node:fs'
import { resolve } from 'node:path'
import { closest } from '../../closest.js'
import { systemReason } from '../../system-error.js'
import { type Option, type Options } from './option.js'
import { UsageError } from './usage-error.js'

/** An option as it was written somewhere: its name there, and its text. */
export interface Given {
  readonly rawName: string
  readonly text: string
}

/** What makes no sense in a file. */
const onlyOnTheLine: ReadonlySet<string> = new Set(['config', 'demo', 'help', 'version'])

/**
 * The options that a JSON file gives, by the names they have on the command line: a switch as
 * `true` or `false`, every other as the text that would follow it there, or as a number.
 */
export function readConfig(path: string, options: Options): ReadonlyMap<string, Given> {
  const file = resolve(path)
  const known = Object.keys(options).filter((name) => !onlyOnTheLine.has(name))
  const given = new Map<string, Given>()
  for (const [name, value] of Object.entries(object(file))) {
    if (!known.includes(name)) throw unknown(name, file, known)
    const text = textOf(name, value, options[name]!, file)
    if (text !== undefined) given.set(name, { rawName: `"${name}" of ${file}`, text })
  }
  return given
}

function object(file: string): object {
  const value: unknown = parse(file, read(file))
  if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value
  throw new UsageError(`${file} must hold one JSON object: {"socket": "/run/uffd.sock", …}`)
}

function read(file: string): string {
  try {
    return readFileSync(file, 'utf8')
  } catch (error) {
    throw new UsageError(`Cannot read the options in ${file}: ${systemReason(error)}`)
  }
}

function parse(file: string, text: string): unknown {
  try {
    return JSON.parse(text)
  } catch (error) {
    throw new UsageError(`${file} is not JSON: ${systemReason(error)}`)
  }
}

function unknown(name: string, file: string, known: readonly string[]): UsageError {
  const near = closest(name, known)
  const hint = near === undefined ? `; there are ${known.join(', ')}` : `; did you mean "${near}"?`
  return new UsageError(`There is no option "${name}" for ${file}${hint}`)
}

/** The text an option has to be read from; none if it says what holds without it. */
function textOf(
  name: string,
  value: unknown,
  { takes, negatable }: Option<unknown>,
  file: string,
): string | undefined {
  if (takes === undefined) {
    if (typeof value !== 'boolean') throw wrong(name, file, 'true or false', value)
    return value || negatable ? String(value) : undefined
  }
  // A number is a time, an amount or a mode, and the name of no file.
  const isNumber = typeof value === 'number' && !/^(?:PATH|FILE|DIR)/.test(takes)
  if (typeof value === 'string' || isNumber) return String(value)
  throw wrong(name, file, `${takes} as a string`, value)
}

function wrong(name: string, file: string, expected: string, value: unknown): UsageError {
  return new UsageError(`"${name}" of ${file} must be ${expected}, not ${JSON.stringify(value)}`)
}
