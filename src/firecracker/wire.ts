import { looseObject, object, options, Place, record, type Check, type Shape } from '../validate.js'

/** A field: its published name, and what it has to be. */
export interface Field<T> {
  readonly wire: string
  readonly check: Check<T>
}

/** The one table of a request or an answer: our name, the published name, the type. */
export type Fields<T> = { readonly [Key in keyof T]-?: Field<T[Key]> }

export const field = <T>(wire: string, check: Check<T>): Field<T> => ({ wire, check })

/** Checks what the caller gave; no other fields are allowed. */
export function checkFields<T extends object>(fields: Fields<T>): Check<T> {
  return object<T>(mapFields(fields, (name) => [name, fields[name].check]) as Shape<T>)
}

/** Checked values under their published names, in the order of the table. */
export function toWire<T extends object>(fields: Fields<T>, value: T): Record<string, unknown> {
  const named = mapFields(fields, (name) => [fields[name].wire, value[name]])
  return Object.fromEntries(Object.entries(named).filter(([, one]) => one !== undefined))
}

/**
 * Published names back to ours. Fields that are not in the table are left alone,
 * and `null` is how some answers say that a field is absent.
 */
export function fromWire<T extends object>(fields: Fields<T>): (body: unknown) => T {
  type Body = Record<string, unknown>
  const check = looseObject<Body>(
    mapFields(fields, (name) => [fields[name].wire, fields[name].check]) as Shape<Body>,
  )
  return (body) => {
    const at = new Place('ERR_UFFD_FIRECRACKER_BAD_ANSWER', 'answer')
    const wire = check(withoutNulls(record(body, at)), at)
    const ours = mapFields(fields, (name) => [name, wire[fields[name].wire]])
    return Object.fromEntries(Object.entries(ours).filter(([, one]) => one !== undefined)) as T
  }
}

function withoutNulls(body: Record<string, unknown>): Record<string, unknown> {
  return Object.fromEntries(Object.entries(body).filter(([, value]) => value !== null))
}

function mapFields<T extends object>(
  fields: Fields<T>,
  entry: (name: keyof T & string) => [string, unknown],
): Record<string, unknown> {
  return Object.fromEntries((Object.keys(fields) as (keyof T & string)[]).map(entry))
}

/** A request that changes nothing is refused by Firecracker in words that do not help. */
export function refuseEmpty(body: object, known: object, what: string): void {
  if (Object.keys(body).length > 0) return
  const names = Object.keys(known).join(', ')
  options().fail(`Expected at least one field to change in ${what}: ${names}`, body)
}
