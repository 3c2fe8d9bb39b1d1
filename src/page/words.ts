// Numbers as people read them.

const digits = new Intl.NumberFormat('en-US', { maximumFractionDigits: 0 })

export const whole = (value: number): string => digits.format(value)

const scaled = (value: number, step: number, units: readonly string[]): string => {
  let unit = 0
  let rest = value
  while (rest >= step && unit < units.length - 1) {
    rest /= step
    unit++
  }
  return `${rest >= 100 ? whole(rest) : Number(rest.toFixed(1))} ${units[unit]}`
}

export const bytes = (value: number): string =>
  scaled(value, 1024, ['B', 'KiB', 'MiB', 'GiB', 'TiB'])

export const micros = (value: number): string =>
  value === Infinity ? 'longer' : scaled(value, 1000, ['µs', 'ms', 's'])

/** What a state is called. */
export const states = {
  clean: 'from the snapshot',
  zero: 'zeros',
  dirty: 'written',
  removed: 'given back',
  poisoned: 'could not be had',
  unfaulted: 'not needed yet',
} as const

export type State = keyof typeof states
