import { readFile } from 'node:fs/promises'
import { dirname } from 'node:path'
import { UffdError, UffdValidationError } from '../errors.js'
import { parseTemplate, type Template } from './template.js'

/** Reads and checks a template's JSON file. Errors name the file. */
export async function readTemplate(file: string): Promise<Template> {
  const input = parseJson(file, await readText(file))
  try {
    return parseTemplate(input, dirname(file))
  } catch (error) {
    if (!(error instanceof UffdValidationError)) throw error
    throw new UffdValidationError(error.code, `${file}: ${error.message}`, error.field, error.value)
  }
}

async function readText(file: string): Promise<string> {
  try {
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
  const why = cause instanceof Error ? cause.message : String(cause)
  return new UffdError('ERR_UFFD_INVALID_TEMPLATE', `${what}: ${why}`, { cause })
}
