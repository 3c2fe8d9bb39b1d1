import { resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import type { Place } from './place.js'

export { argument, options, Place } from './place.js'

/**
 * Turns an unknown value into a `T` or throws an error that names the place.
 * A check that allows `undefined` makes its field one that may be left out.
 */
export type Check<T> = (value: unknown, at: Place) => T

/** One check for each field of `T`; a field without a check does not compile. */
export type Shape<T> = { readonly [Key in keyof T]-?: Check<T[Key]> }

export const boolean: Check<boolean> = (value, at) =>
  typeof value === 'boolean' ? value : at.expected('true or false', value)

/** A whole number between two bounds, both included; `unit`, in the plural, is for the message. */
export function integer({
  min = 0,
  max = Number.MAX_SAFE_INTEGER,
  unit = '',
}: { min?: number; max?: number; unit?: string } = {}): Check<number> {
  const of = unit === '' ? '' : ` of ${unit}`
  const range = max === Number.MAX_SAFE_INTEGER ? `, at least ${min}` : ` from ${min} to ${max}`
  return (value, at) =>
    typeof value === 'number' && Number.isInteger(value) && value >= min && value <= max
      ? value
      : at.expected(`a whole number${of}${range}`, value)
}

/** The longest time a timer of Node.js can wait. */
const longestTimer = 2 ** 31 - 1

export const milliseconds: Check<number> = integer({
  min: 1,
  max: longestTimer,
  unit: 'milliseconds',
})

export const string: Check<string> = (value, at) =>
  typeof value === 'string' && value !== '' ? value : at.expected('a string, not empty', value)

export const filePath: Check<string> = (value, at) =>
  typeof value === 'string' && value !== '' && !value.includes('\0')
    ? value
    : at.expected('a path', value)

/** A file of this host: a path, made absolute so that messages name it, or a `file:` URL. */
export const localFile: Check<string> = (value, at) =>
  resolve(value instanceof URL ? fileOf(value, at) : filePath(value, at))

function fileOf(url: URL, at: Place): string {
  try {
    return filePath(fileURLToPath(url), at)
  } catch {
    return at.expected('a path or a file: URL', url)
  }
}

/** The longest path of a Unix socket that Linux takes, in bytes. */
const longestSocketPath = 107

/** A path short enough for a Unix socket: a longer one fails late and with a riddle. */
export const socketFile: Check<string> = (value, at) => {
  const file = filePath(value, at)
  const length = Buffer.byteLength(file)
  if (length <= longestSocketPath) return file
  return at.expected(`a path of at most ${longestSocketPath} bytes, not of ${length}`, file)
}

/** The same on this host. It is made absolute where that leaves it short enough. */
export const localSocket: Check<string> = (value, at) => {
  const file = socketFile(value instanceof URL ? fileOf(value, at) : value, at)
  const absolute = resolve(file)
  return Buffer.byteLength(absolute) <= longestSocketPath ? absolute : file
}

export const abortSignal: Check<AbortSignal> = (value, at) =>
  value instanceof AbortSignal ? value : at.expected('an AbortSignal', value)

export function oneOf<const T extends string>(allowed: readonly T[]): Check<T> {
  const words = allowed.map((one) => JSON.stringify(one))
  const list = [words.slice(0, -1).join(', '), words.at(-1)].filter(Boolean).join(' or ')
  return (value, at) => allowed.find((one) => one === value) ?? at.expected(list, value)
}

/** Lets the field be left out; an explicit `undefined` counts as left out. */
export function optional<T>(check: Check<T>): Check<T | undefined> {
  return (value, at) => (value === undefined ? undefined : check(value, at))
}

export function arrayOf<T>(check: Check<T>): Check<T[]> {
  return (value, at) =>
    Array.isArray(value)
      ? value.map((item, index) => check(item, at.item(index)))
      : at.expected('an array', value)
}

/** The same with URLs of files as their paths. */
export type Checked<T> = { readonly [Key in keyof T]: Exclude<T[Key], URL> }

/** An object with exactly these fields. Those left out are absent from the result. */
export function object<T extends object>(shape: Shape<T>): Check<T> {
  const known = Object.keys(shape)
  return (value, at) => {
    const given = record(value, at)
    for (const name of Object.keys(given)) {
      if (!known.includes(name)) at.unknownField(name, known, given[name])
    }
    return pick(shape, given, at)
  }
}

/** An object of which only these fields matter, as in an answer of a newer Firecracker. */
export function looseObject<T extends object>(shape: Shape<T>): Check<T> {
  return (value, at) => pick(shape, record(value, at), at)
}

export const record: Check<Record<string, unknown>> = (value, at) =>
  typeof value === 'object' && value !== null && !Array.isArray(value)
    ? (value as Record<string, unknown>)
    : at.expected('an object', value)

function pick<T extends object>(shape: Shape<T>, given: Record<string, unknown>, at: Place): T {
  const result: Partial<T> = {}
  for (const name of Object.keys(shape) as (keyof T & string)[]) {
    const own = Object.hasOwn(given, name) ? given[name] : undefined
    const checked = shape[name](own, at.field(name))
    if (checked !== undefined) result[name] = checked
  }
  return result as T
}
