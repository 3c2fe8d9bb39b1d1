import type { Guest } from '../guest/guest.js'
import { spreadOf } from '../metrics/latency.js'
import { guestTable, measured } from '../metrics/table.js'

/** A guest as `/guests` tells of it. */
export function describeGuest(guest: Guest) {
  const { id, pid, peer, tags, recovered, pageSize, tracking, owner, regions } = guest
  const metrics = measured(guestTable, guest.figures())
  const [histogram] = metrics
  const counted = metrics
    .filter(({ kind }) => kind !== 'histogram')
    .map(({ name, kind, samples }) => ({ name, kind, samples }))
  const named = (which: typeof counted) =>
    Object.fromEntries(
      which.flatMap(({ samples }) => samples.map((one) => [one.field!, one.value])),
    )
  return {
    id,
    pid,
    peer,
    tags,
    recovered,
    memoryBytes: Number(regions.reduce((sum, { size }) => sum + size, 0n)),
    pageSize,
    tracking,
    owner,
    counters: named(counted.filter(({ kind }) => kind === 'counter')),
    pages: named(counted.filter(({ name }) => name === 'uffd_pages')),
    now: named(counted.filter(({ name, kind }) => kind === 'gauge' && name !== 'uffd_pages')),
    latencyMicros: spreadOf(histogram!),
  }
}
