const longest = 80

/** A value as an error message shows it: short, with its type where that is the point. */
export function show(value: unknown): string {
  switch (typeof value) {
    case 'string':
      return `the string ${shorten(JSON.stringify(value))}`
    case 'bigint':
      return `${value}n`
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
  if (Array.isArray(value)) return `an array of ${value.length}`
  const name: unknown = value.constructor?.name
  return typeof name === 'string' && name !== 'Object' ? `a ${name}` : 'an object'
}

/** Cuts a text that would make a message unreadable. */
export function shorten(text: string, length: number = longest): string {
  return text.length <= length ? text : `${text.slice(0, length - 1)}…`
}
