import type { Guest } from '../guest/guest.js'
import { type Measured, singles } from './table.js'

/**
 * The counters and gauges of each guest as series of their own, under names of their own: added
 * up with those of the server, everything would count twice.
 */
export function metricsOfGuests(guests: readonly Guest[]): Measured[] {
  if (guests.length === 0) return []
  const each = guests.map((guest) => {
    const { id, pid } = guest
    const labels = { guest: id, ...(pid !== undefined && { pid: `${pid}` }) }
    return { labels, values: guest.figures() }
  })
  return singles.map((series) => {
    const { name, kind, unit, help, bounds } = series[0]!.metric
    const samples = each.flatMap(({ labels, values }) =>
      series.map(({ labels: own, field, at }) => {
        return { labels: { ...labels, ...own }, field, value: values[at]! }
      }),
    )
    const named = name.replace(/^uffd_/, 'uffd_guest_')
    return { name: named, kind, unit: unit ?? undefined, help, bounds, samples }
  })
}
