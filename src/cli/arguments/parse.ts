import { parseArgs } from 'node:util'
import { closest } from '../../closest.js'
import { type Given, readConfig } from './config.js'
import { type Option, type Options, required, type Values } from './option.js'
import { UsageError } from './usage-error.js'

/** What a command line says: the values of all options, and the other words. */
export interface Parsed<T extends Options> {
  readonly values: Values<T>
  readonly words: readonly string[]
}

/**
 * Reads a command line by the table that also makes the help. What a file given as `--config` says
 * counts where the line says nothing.
 */
export function parse<T extends Options>(args: readonly string[], options: T): Parsed<T> {
  const given = new Map<string, Given>()
  const words: string[] = []
  const { tokens } = parseArgs({
    args: [...args],
    options: spellings(options),
    strict: false,
    tokens: true,
  })
  for (const token of tokens) {
    if (token.kind === 'positional') words.push(token.value)
    if (token.kind === 'option') add(given, options, token)
  }
  const config = Object.hasOwn(options, 'config') ? given.get('config') : undefined
  const inFile = config && readConfig(config.text, options)
  const values = Object.entries(options).map(([name, option]) => {
    return [name, valueOf(name, option, given.get(name) ?? inFile?.get(name))]
  })
  return { values: Object.fromEntries(values) as Values<T>, words }
}

/** The options as `node:util` knows them, `--no-` forms included. */
function spellings(options: Options) {
  const all = Object.entries(options).flatMap(([name, { takes, negatable }]) => {
    const positive = [name, { type: takes === undefined ? 'boolean' : 'string' }] as const
    return negatable ? [positive, [`no-${name}`, { type: 'boolean' }] as const] : [positive]
  })
  return Object.fromEntries(all)
}

interface OptionToken {
  readonly name: string
  readonly rawName: string
  readonly value?: string | undefined
  readonly inlineValue?: boolean | undefined
}

function add(given: Map<string, Given>, options: Options, token: OptionToken): void {
  const { name, rawName, value, inlineValue } = token
  const positive = name.startsWith('no-') ? name.slice(3) : undefined
  const isNegation = positive !== undefined && own(options, positive)?.negatable === true
  const meant = isNegation ? positive : name
  const option = own(options, meant)
  if (option === undefined || !rawName.startsWith('--')) throw unknown(rawName, options)
  if (given.has(meant)) throw new UsageError(`${rawName} is given twice`)
  if (option.takes === undefined) {
    if (value !== undefined) throw new UsageError(`${rawName} takes no value`)
    given.set(meant, { rawName, text: String(!isNegation) })
    return
  }
  if (value === undefined) throw new UsageError(`${rawName} needs a value: ${option.takes}`)
  if (inlineValue !== true && value.startsWith('-') && value.length > 1) {
    throw new UsageError(
      `${rawName} needs a value, and is followed by ${value}; if that is meant, write ` +
        `${rawName}=${value}`,
    )
  }
  given.set(meant, { rawName, text: value })
}

function own(options: Options, name: string): Option<unknown> | undefined {
  return Object.hasOwn(options, name) ? options[name] : undefined
}

function unknown(rawName: string, options: Options): UsageError {
  const near = closest(
    rawName,
    Object.keys(spellings(options)).map((name) => `--${name}`),
  )
  const hint = near === undefined ? '' : `; did you mean ${near}?`
  return new UsageError(`There is no option ${rawName}${hint}`)
}

function valueOf(name: string, option: Option<unknown>, given: Given | undefined): unknown {
  if (given === undefined) {
    if (option.absent !== required) return option.absent
    throw new UsageError(`--${name} ${option.takes} is missing`)
  }
  try {
    return option.read(given.text)
  } catch (error) {
    if (!(error instanceof UsageError)) throw error
    throw new UsageError(`${given.rawName} ${error.message}, not ${JSON.stringify(given.text)}`)
  }
}
