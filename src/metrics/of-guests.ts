import type { Guest } from '../guest/guest.js'
import type { Check } from '../validate.js'
import { type Measured, singles } from './table.js'

const own = new Set([
  'guest',
  'pid',
  ...singles.flat().flatMap(({ labels }) => Object.keys(labels)),
])

/** The name of a tag that can be a label: Prometheus keeps the others, and we have some. */
export const labelName: Check<string> = (value, at) => {
  if (typeof value !== 'string' || !/^(?!__)[a-zA-Z_][a-zA-Z0-9_]*$/.test(value)) {
    return at.expected('the name of a label (letters, digits and _, such as vm)', value)
  }
  return own.has(value) ? at.expected('a name that no label has yet', value) : value
}

/**
 * The counters and gauges of each guest as series of their own, under names of their own: added
 * up with those of the server, everything would count twice. These of a guest's tags are labels.
 */
export function metricsOfGuests(
  guests: readonly Guest[],
  tagLabels: readonly string[] = [],
): Measured[] {
  if (guests.length === 0) return []
  const each = guests.map((guest) => {
    const { id, pid, tags } = guest
    const tagged = tagLabels.filter((name) => Object.hasOwn(tags, name))
    const labels = {
      guest: id,
      ...(pid !== undefined && { pid: `${pid}` }),
      ...Object.fromEntries(tagged.map((name) => [name, tags[name]!])),
    }
    return { labels, values: guest.figures() }
  })
  return singles.map((series) => {
    const { name, kind, unit, help, bounds } = series[0]!.metric
    const samples = each.flatMap(({ labels, values }) =>
      series.map(({ labels: further, field, at }) => {
        return { labels: { ...labels, ...further }, field, value: values[at]! }
      }),
    )
    const named = name.replace(/^uffd_/, 'uffd_guest_')
    return { name: named, kind, unit: unit ?? undefined, help, bounds, samples }
  })
}
