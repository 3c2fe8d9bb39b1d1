import { oneOf } from './words.js'
import { UsageError } from './usage-error.js'

/** An option of the command line: what it takes, what it means, and how its text is read. */
export interface Option<Value> {
  /** What stands for its value in the help; without it the option is a switch. */
  readonly takes?: string
  /** One sentence or two; lines are broken where they are here. */
  readonly help: string
  /** The default, for people. */
  readonly default?: string
  /** There is a `--no-` form too. */
  readonly negatable?: true
  /** Turns the text into a value; throws a string-like reason. A switch gets `true` or `false`. */
  readonly read: (text: string) => Value
  /** The value if the option is not given. */
  readonly absent: Value | typeof required
}

/** Options by their names without dashes. */
export type Options = Readonly<Record<string, Option<unknown>>>

/** The values of options. */
export type Values<T extends Options> = {
  readonly [Name in keyof T]: T[Name] extends Option<infer Value> ? Value : never
}

/** In the place of a default: the option must be given. */
export const required = Symbol('required')

type About = Pick<Option<unknown>, 'help' | 'default'>

export function flag(about: About): Option<boolean> {
  return { ...about, read: () => true, absent: false }
}

/** A switch that can also be turned off, and is `undefined` if it is not given. */
export function negatable(about: About): Option<boolean | undefined> {
  return { ...about, negatable: true, read: (given) => given === 'true', absent: undefined }
}

export function text(takes: string, about: About): Option<string | undefined> {
  return { takes, ...about, read: filled, absent: undefined }
}

export function requiredText(takes: string, about: About): Option<string> {
  return { takes, ...about, read: filled, absent: required }
}

export function choice<const T extends string>(
  allowed: readonly T[],
  about: About,
): Option<T | undefined> {
  const read = (given: string) => {
    const found = allowed.find((one) => one === given)
    if (found === undefined) throw new UsageError(`must be ${oneOf(allowed)}`)
    return found
  }
  return { takes: allowed.join('|'), ...about, read, absent: undefined }
}

/** A file with options, for the commands that have many. */
export const config = text('FILE', {
  help: 'A JSON file with options by their names here, such as\n{"socket": "/run/uffd.sock", "fault-around": 16}. The command line\ncounts more.',
})

function filled(given: string): string {
  if (given === '') throw new UsageError('must not be empty')
  return given
}
