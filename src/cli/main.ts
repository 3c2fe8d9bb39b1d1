import { parse } from './arguments/parse.js'
import { help } from './arguments/help.js'
import { UsageError } from './arguments/usage-error.js'
import type { Command } from './command.js'
import { exitStatus } from './exit-status.js'
import { find } from './find.js'
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
    // Some values can only be judged once they are used.
    const isInvalid = (error as { code?: unknown } | null)?.code === 'ERR_UFFD_INVALID_OPTION'
    return isInvalid ? exitStatus.usage : exitStatus.failed
  }
}

async function obey(args: readonly string[]): Promise<number> {
  if (args.includes('--version')) {
    print(`${version()}\n`)
    return exitStatus.ok
  }
  let of = ''
  try {
    const { command, rest } = find(args.includes('--demo') ? demoIn(args) : args)
    of = command.name
    return await carryOut(command, rest)
  } catch (error) {
    if (!(error instanceof UsageError)) throw error
    complain(`${error.message}\nSee ${['uffd-rs-serve', of, '--help'].filter(Boolean).join(' ')}`)
    return exitStatus.usage
  }
}

async function carryOut(command: Command, rest: readonly string[]): Promise<number> {
  if (rest.includes('--help') || rest.includes('-h')) {
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
