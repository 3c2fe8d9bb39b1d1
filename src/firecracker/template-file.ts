import { readFile, stat } from 'node:fs/promises'
import { dirname } from 'node:path'
import { UffdError, UffdValidationError } from '../errors.js'
import { systemReason } from '../system-error.js'
import { argument, localFile } from '../validate.js'
import type { FreePageChoice } from './reporting.js'
import { parseTemplate, type Template } from './template.js'

/**
 * Reads and checks a template's JSON file; a choice given here takes the place of the file's.
 * Errors name the file.
 */
export async function readTemplate(
  template: string | URL,
  choice: FreePageChoice = {},
): Promise<Template> {
  const file = localFile(template, argument('template'))
  const input = withChoice(parseJson(file, await readText(file)), choice)
  try {
    return parseTemplate(input, dirname(file))
  } catch (error) {
    if (!(error instanceof UffdValidationError)) throw error
    throw new UffdValidationError(error.code, `${file}: ${error.message}`, error.field, error.value)
  }
}

function withChoice(input: unknown, choice: FreePageChoice): unknown {
  if (typeof input !== 'object' || input === null || Array.isArray(input)) return input
  const given = Object.entries(choice).filter(([, value]) => value !== undefined)
  return { ...input, ...Object.fromEntries(given) }
}

/** More than any template has; a larger file is something else. */
const largestTemplate = 1024 * 1024

async function readText(file: string): Promise<string> {
  try {
    const stats = await stat(file)
    // Opening a pipe would wait for somebody to write, for ever and on a thread of the pool.
    if (!stats.isFile()) throw new Error('it is not a regular file')
    if (stats.size > largestTemplate) {
      throw new Error(`it has ${stats.size} bytes, and at most ${largestTemplate} are read`)
    }
    return await readFile(file, 'utf8')
  } catch (cause) {
    throw unreadable(`Cannot read the template ${file}`, cause)
  }
}

function parseJson(file: string, text: string): unknown {
  try {
    return JSON.parse(text)
  } catch (cause) {
    throw unreadable(`The template ${file} is not JSON`, cause)
  }
}

function unreadable(what: string, cause: unknown): UffdError {
  return new UffdError('ERR_UFFD_INVALID_TEMPLATE', `${what}: ${systemReason(cause)}`, { cause })
}
