import type { Options } from '../arguments/option.js'
import { inOptions } from './in-options.js'

/** An error as a person reads it: its message, its code, and no stack unless it is a defect. */
export function errorText(error: unknown, options: Options = {}): string {
  if (!(error instanceof Error)) return String(error)
  const { code } = error as { code?: unknown }
  if (typeof code === 'string') return `${inOptions(error, options)} (${code})`
  return error.stack ?? error.message
}
