// Numbers as people read them.

const digits = new Intl.NumberFormat('en-US', { maximumFractionDigits: 0 })

/** `12,345` */
export const whole = (value: number): string => digits.format(value)

/** `1 page`, `2 pages` */
export const several = (value: number, noun: string, nouns = `${noun}s`): string =>
  `${whole(value)} ${value === 1 ? noun : nouns}`

const binary = ['B', 'KiB', 'MiB', 'GiB', 'TiB']

/** `1.5 GiB` */
export function bytes(value: number): string {
  let unit = 0
  let rest = value
  while (rest >= 1024 && unit < binary.length - 1) {
    rest /= 1024
    unit++
  }
  return `${short(rest)} ${binary[unit]}`
}

/** Microseconds: `9.5 µs`, `1.2 ms`, `3 s` */
export function micros(value: number): string {
  if (value < 1000) return `${short(value)} µs`
  if (value < 1_000_000) return `${short(value / 1000)} ms`
  return `${short(value / 1_000_000)} s`
}

function short(value: number): string {
  if (value >= 100) return whole(value)
  return String(Number(value.toFixed(1)))
}
