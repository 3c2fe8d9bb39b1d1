import type { Options } from '../arguments/option.js'

/** Options whose names are not those of the package in other spelling. */
const others: Readonly<Record<string, string>> = {
  statsIntervalMs: 'stats',
  'timeouts.loadMs': 'load-timeout',
}

/** An error of the package as the user of the command has to read it: with the option's name here. */
export function inOptions(error: Error, options: Options): string {
  const { field } = error as { field?: unknown }
  if (typeof field !== 'string') return error.message
  const name = others[field] ?? optionOf(field, options)
  return name === undefined
    ? error.message
    : error.message.replace(`the option "${field}"`, `--${name}`)
}

/** `faultDeadlineMs` is `fault-deadline` here, and a part of `socketOwner` belongs to `socket-owner`. */
function optionOf(field: string, options: Options): string | undefined {
  const [whole = ''] = field.split(/[.[]/)
  const name = whole.replace(/Ms$/, '').replaceAll(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)
  return Object.hasOwn(options, name) ? name : undefined
}
