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
  // `help restore` is `restore --help`.
  const [first, ...others] = given
  const args = first === 'help' ? [...others, '--help'] : given
  if (args.includes('--version')) {
    print(`${version()}\n`)
    return exitStatus.ok
  }
  const family = familyOf(args)
  if (family !== undefined && asksForHelp(args)) {
    print(familyHelp(family))
    return exitStatus.ok
  }
  let of: Command | undefined
  try {
    const { command, rest } = find(args.includes('--demo') ? demoIn(args) : args)
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

const asksForHelp = (args: readonly string[]) => args.includes('--help') || args.includes('-h')

async function carryOut(command: Command, rest: readonly string[]): Promise<number> {
  if (asksForHelp(rest)) {
    print(help(command))
    return exitStatus.ok
  }
  const { values, words } = parse(rest, command.options)
  const { names, least, most } = command.words ?? { names: '', least: 0, most: 0 }
  if (words.length > most) throw new UsageError(`Unexpected argument ${words[most]}`)
  if (words.length < least) throw new UsageError(`${names} is missing`)
  return await command.run(values, words)
}

/** `--demo` is the command `demo` for those who look for an option. */
function demoIn(args: readonly string[]): readonly string[] {
  return ['demo', ...args.filter((arg) => arg !== '--demo')]
}
