import { closest } from '../closest.js'
import { UsageError } from './arguments/usage-error.js'
import { oneOf } from './arguments/words.js'
import type { Command } from './command.js'
import { commands } from './commands.js'

/** A command, and what of the line is left for it. */
export interface Found {
  readonly command: Command
  readonly rest: readonly string[]
}

/** The command whose words the line starts with; one that starts with an option serves. */
export function find(args: readonly string[]): Found {
  const [first] = args
  const isNamed = first !== undefined && !first.startsWith('-')
  for (const command of commands) {
    const words = command.name.split(' ').filter((word) => word !== '')
    if (words.length === 0 && isNamed) continue
    if (words.every((word, index) => args[index] === word)) {
      return { command, rest: args.slice(words.length) }
    }
  }
  throw unknown(args)
}

/** The commands whose first word the line consists of, if it names none of them: `trace --help`. */
export function familyOf([first, second]: readonly string[]): readonly Command[] | undefined {
  const kin = commands.filter(({ name }) => name.startsWith(`${first} `))
  const isOne = kin.some(({ name }) => name === `${first} ${second}`)
  return kin.length > 0 && !isOne ? kin : undefined
}

/** Only a named command is not found. */
function unknown(args: readonly string[]): UsageError {
  const names = commands.map(({ name }) => name).filter((name) => name !== '')
  const [first, second] = args
  const kin = names.filter((name) => name.startsWith(`${first} `))
  if (kin.length > 0) {
    const what =
      second === undefined
        ? `${first} alone is no command`
        : `There is no command ${first} ${second}`
    return new UsageError(`${what}: give ${oneOf(kin)}`)
  }
  const near = closest(first!, [...names, 'help'])
  const hint = near === undefined ? `: give ${oneOf(names)}` : `; did you mean ${near}?`
  return new UsageError(`There is no command ${first}${hint}`)
}
