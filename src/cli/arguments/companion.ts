import type { Values, Options } from './option.js'
import { UsageError } from './usage-error.js'

/** Refuses an option that says something about another one, which is not given. */
export function requireCompanion<T extends Values<Options>>(
  values: T,
  option: keyof T & string,
  companion: keyof T & string,
  does: string,
): void {
  if (isGiven(values[option]) && !isGiven(values[companion])) {
    throw new UsageError(`--${option} ${does}: give --${companion} too`)
  }
}

/** A switch that is not given is off, and everything else is not there. */
const isGiven = (value: unknown) => value !== undefined && value !== false
