import type { Options } from './option.js'

/** A command's page of help. */
export interface Page {
  /** What comes after the name of the program, one line a form. */
  readonly usage: readonly string[]
  readonly about: string
  readonly options: Options
  /** What follows the options. */
  readonly notes?: string | undefined
}

const program = 'uffd-rs-serve'
const indent = 28

export function help({ usage, about, options, notes }: Page): string {
  const forms = usage.map((form) => `  ${program} ${form}`.trimEnd()).join('\n')
  const table = Object.entries(options).map(([name, option]) => row(name, option))
  const parts = [about, `Usage:\n${forms}`, `Options:\n${table.join('\n')}`, notes]
  return `${parts.filter((part) => part !== undefined).join('\n\n')}\n`
}

/** The help for the first word of several commands. */
export function familyHelp(pages: readonly Page[]): string {
  const forms = pages.flatMap(({ usage, about }) => [
    ...usage.map((form) => `  ${program} ${form}`),
    ...about.split('\n').map((line) => `      ${line}`),
  ])
  return `Usage:\n${forms.join('\n')}\n\nEach of them has a --help of its own.\n`
}

function row(name: string, option: Options[string]): string {
  const dashed = option.negatable ? `--[no-]${name}` : `--${name}`
  const left = `  ${dashed}${option.takes === undefined ? '' : ` ${option.takes}`}`
  const lines = option.help.split('\n')
  if (option.default !== undefined) lines.push(`Default: ${option.default}`)
  const margin = `\n${' '.repeat(indent)}`
  const gap = left.length > indent - 2 ? margin : ' '.repeat(indent - left.length)
  return `${left}${gap}${lines.join(margin)}`
}
