import type { Guest } from '../guest/guest.js'
import { guestTable, type Measured, measured } from './table.js'

/**
 * The counters and gauges of each guest as series of their own, under names of their own: added
 * up with those of the server, everything would count twice.
 */
export function metricsOfGuests(guests: readonly Guest[]): Measured[] {
  const each = guests.map((guest) => {
    const { id, pid } = guest
    const labels = { guest: id, ...(pid !== undefined && { pid: `${pid}` }) }
    return { labels, metrics: measured(guestTable, guest.figures()) }
  })
  return guestTable.flatMap(({ name, kind }, at) => {
    if (kind === 'histogram' || each.length === 0) return []
    const samples = each.flatMap(({ labels, metrics }) =>
      metrics[at]!.samples.map(({ labels: own, field, value }) => {
        return { labels: { ...labels, ...own }, field, value }
      }),
    )
    const { help, unit, bounds } = each[0]!.metrics[at]!
    return [{ name: name.replace(/^uffd_/, 'uffd_guest_'), kind, unit, help, bounds, samples }]
  })
}
