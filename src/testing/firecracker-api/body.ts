import type { FieldRule, Json, JsonObject, Rules } from './published.js'

/** A request that is refused with a 400 and this fault message. */
export class Fault extends Error {}

const invalid = (why: string) => new Fault(`The request's JSON body cannot be read: ${why}`)

/** Reads a body as strictly as Firecracker does: every field known, present, of its type. */
export function readBody(text: string, rules: Rules, minor: number): JsonObject {
  let body: Json
  try {
    body = JSON.parse(text) as Json
  } catch {
    throw invalid(text === '' ? 'it is empty' : 'it is not JSON')
  }
  return checkObject(body, rules, minor)
}

function checkObject(value: Json, rules: Rules, minor: number): JsonObject {
  if (!isObject(value)) throw invalid(`invalid type: ${describe(value)}, expected a struct`)
  const known = Object.entries(rules).filter(([, { since = 0 }]) => since <= minor)
  const names = known.map(([name]) => name)
  for (const name of Object.keys(value)) {
    if (!names.includes(name)) {
      const list = names.map((one) => `\`${one}\``).join(', ')
      throw invalid(`unknown field \`${name}\`, expected one of ${list}`)
    }
  }
  for (const [name, rule] of known) {
    const given = value[name]
    if (given !== undefined) checkField(name, given, rule, minor)
    else if (rule.required) throw invalid(`missing field \`${name}\``)
  }
  return value
}

function checkField(name: string, value: Json, rule: FieldRule, minor: number): void {
  const { type } = rule
  if (type === 'integer') return checkInteger(name, value, rule)
  if (typeof type === 'string') {
    if (typeof value !== type) throw wrongType(name, value, type)
    checkValue(value as string, rule, minor)
  } else if (isList(type)) {
    if (!Array.isArray(value)) throw wrongType(name, value, 'a sequence')
    for (const item of value) checkObject(item, type[0], minor)
  } else {
    checkObject(value, type, minor)
  }
}

function checkValue(value: string, { values, laterValues = {} }: FieldRule, minor: number): void {
  if (values === undefined) return
  const later = Object.keys(laterValues).filter((one) => laterValues[one]! <= minor)
  const known = [...values, ...later]
  if (!known.includes(value)) {
    throw invalid(`unknown variant \`${value}\`, expected one of ${known.join(', ')}`)
  }
}

function checkInteger(name: string, value: Json, { min = 0, max = Infinity }: FieldRule): void {
  if (typeof value !== 'number' || !Number.isInteger(value)) {
    throw wrongType(name, value, 'integer')
  }
  if (value < min || value > max) throw invalid(`${name}: ${value} is out of range`)
}

function wrongType(name: string, value: Json, expected: string): Fault {
  return invalid(`${name}: invalid type: ${describe(value)}, expected ${expected}`)
}

const describe = (value: Json) => JSON.stringify(value)

const isList = (type: Rules | readonly [Rules]): type is readonly [Rules] => Array.isArray(type)

const isObject = (value: Json): value is JsonObject =>
  typeof value === 'object' && value !== null && !Array.isArray(value)
