import { parse } from './arguments/parse.js'
import { familyHelp, help } from './arguments/help.js'
import { UsageError } from './arguments/usage-error.js'
import { UffdValidationError } from '../errors.js'
import type { Command } from './command.js'
import { exitStatus } from './exit-status.js'
import { familyOf, find } from './find.js'
import { errorText } from './output/error-text.js'
import { version } from './version.js'

const print = (text: string) => void process.stdout.write(text)
const complain = (text: string) => void process.stderr.write(`uffd-rs-serve: ${text}\n`)

/** Carries out a command line; resolves with the exit status. */
export async function main(args: readonly string[]): Promise<number> {
  // Whoever reads the output may leave before the work is done; guests depend on this process.
  process.stdout.on('error', () => {})
  process.stderr.on('error', () => {})
  try {
    return await obey(args)
  } catch (error) {
    complain(errorText(error))
    return exitStatus.failed
  }
}

async function obey(given: readonly string[]): Promise<number> {
  if (asks(given, '--version')) {
    print(`${version()}\n`)
    return exitStatus.ok
  }
  let of: Command | undefined
  try {
    const named = helpIsAskedFor(given)
    if (named !== undefined) return explain(named)
    const args = asks(given, '--demo') ? demoIn(given) : given
    const family = familyOf(args)
    if (family !== undefined && asksForHelp(args)) return explain(args.slice(0, 1))
    const { command, rest } = find(args)
    of = command
    return await carryOut(command, rest)
  } catch (error) {
    const why = complaint(error, of)
    if (why === undefined) throw error
    complain(`${why}\nSee ${['uffd-rs-serve', of?.name, '--help'].filter(Boolean).join(' ')}`)
    return exitStatus.usage
  }
}

/** What is wrong with the command line, if that is what is wrong. */
function complaint(error: unknown, of: Command | undefined): string | undefined {
  if (error instanceof UsageError) return error.message
  // Some values can only be judged once they are used.
  const isInvalid = error instanceof UffdValidationError && error.code === 'ERR_UFFD_INVALID_OPTION'
  return isInvalid ? errorText(error, of?.options) : undefined
}

/** Whether the option is given; what follows `--` is none. */
function asks(args: readonly string[], option: string): boolean {
  const end = args.indexOf('--')
  return (end === -1 ? args : args.slice(0, end)).includes(option)
}

const asksForHelp = (args: readonly string[]) => asks(args, '--help') || asks(args, '-h')

/** The words of the command whose help a line asks for: `help restore`, or `--help restore`. */
function helpIsAskedFor([first, ...words]: readonly string[]): readonly string[] | undefined {
  if (first === 'help') return words.filter((word) => word !== '--help' && word !== '-h')
  const isNamed = words[0]?.startsWith('-') === false
  return (first === '--help' || first === '-h') && isNamed ? words : undefined
}

/** Prints the help of a command, which has to be all that is named. */
function explain(words: readonly string[]): number {
  const [first, second] = words
  const family = second === undefined ? familyOf(words) : undefined
  if (family !== undefined) {
    print(familyHelp(family))
    return exitStatus.ok
  }
  const { command, rest } = find(first === 'help' ? words.slice(1) : words)
  const [tooMuch] = rest
  if (tooMuch !== undefined)
    throw new UsageError(`help takes a command and no more, not ${tooMuch}`)
  print(help(command))
  return exitStatus.ok
}

async function carryOut(command: Command, rest: readonly string[]): Promise<number> {
  if (asksForHelp(rest)) {
    print(help(command))
    return exitStatus.ok
  }
  const { values, words } = parse(rest, command.options)
  const { names, least, most } = command.words ?? { names: '', least: 0, most: 0 }
  if (words.length > most) throw new UsageError(`Unexpected argument ${words[most]}`)
  if (words.length < least) {
    const found = words.length === 0 ? 'nothing' : words.join(' ')
    throw new UsageError(`${command.name} takes ${names}, and was given ${found}`)
  }
  return await command.run(values, words)
}

/** `--demo` is the command `demo` for those who look for an option. */
function demoIn(args: readonly string[]): readonly string[] {
  const at = args.indexOf('--demo')
  return ['demo', ...args.slice(0, at), ...args.slice(at + 1)]
}
