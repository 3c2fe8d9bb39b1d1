import type { Options } from '../arguments/option.js'
import type { Command } from '../command.js'

/** What can follow an option. */
export type Value = 'nothing' | 'file' | 'anything' | readonly string[]

export interface CompletedOption {
  /** With its dashes. */
  readonly name: string
  readonly help: string
  readonly value: Value
}

export interface CompletedCommand {
  /** The words that call it; none for the one without a name. */
  readonly words: readonly string[]
  readonly summary: string
  readonly options: readonly CompletedOption[]
  /** Its words besides options are files. */
  readonly takesFiles: boolean
}

const files: ReadonlySet<string> = new Set(['FILE', 'PATH', 'DIR', 'TRACE'])

/** What a shell has to know of the commands. */
export const table = (commands: readonly Command[]): readonly CompletedCommand[] =>
  commands.map(({ name, summary, options, words }) => ({
    words: name.split(' ').filter((word) => word !== ''),
    summary,
    options: optionsOf(options),
    takesFiles: words?.names.includes('FILE') ?? false,
  }))

function optionsOf(options: Options): CompletedOption[] {
  return Object.entries(options).flatMap(([name, { takes, help, negatable }]) => {
    const value = valueOf(takes)
    const positive = { name: `--${name}`, help: help.replaceAll('\n', ' '), value }
    return negatable ? [positive, { ...positive, name: `--no-${name}` }] : [positive]
  })
}

/** `on|off|PAGES` can be completed with its words, `FILE` with files. */
function valueOf(takes: string | undefined): Value {
  if (takes === undefined) return 'nothing'
  if (files.has(takes)) return 'file'
  const words = takes.split('|').filter((word) => !/^[A-Z:=[\],…]+$/.test(word))
  return takes.includes('|') && words.length > 0 ? words : 'anything'
}
