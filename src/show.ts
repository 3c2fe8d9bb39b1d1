const longest = 80

/** A value as an error message shows it: short, with its type where that is the point. */
export function show(value: unknown): string {
  switch (typeof value) {
    case 'string':
      return `the string ${shorten(JSON.stringify(value))}`
    case 'bigint':
      return `the bigint ${value}n`
    case 'function':
      return 'a function'
    case 'object':
      return showObject(value)
    default:
      return String(value)
  }
}

function showObject(value: object | null): string {
  if (value === null) return 'null'
  if (Array.isArray(value)) return showArray(value.length)
  const name: unknown = value.constructor?.name
  if (typeof name !== 'string' || name === 'Object') return 'an object'
  return /^[AEIO]/.test(name) ? `an ${name}` : `a ${name}`
}

function showArray(length: number): string {
  return length === 0
    ? 'an empty array'
    : `an array of ${length} ${length === 1 ? 'item' : 'items'}`
}

/** Cuts a text that would make a message unreadable. */
export function shorten(text: string, length: number = longest): string {
  return text.length <= length ? text : `${text.slice(0, length - 1)}…`
}
