import { arch, release } from 'node:os'
import type { Guest } from '../guest/guest.js'
import { describeGuest } from '../http/guests.js'
import { measured, table } from '../metrics/table.js'
import native from '#native'
import type { Inspected } from '../server/inspected.js'

/** The version of what is spoken on a control socket. */
export const protocol = 1

/** How long a guest may take for its statistics; one that does not answer is what a dump is for. */
const patienceMs = 2_000

/** What is told of a server and its guests at a look; asks no guest. */
export function statusOf(server: Inspected) {
  const { socket, snapshot, guests, guardian } = server
  const { isOpen, uptimeMs, stateDir } = server.about()
  const totals = totalsOf(server)
  return {
    protocol,
    version: native.version(),
    pid: process.pid,
    uptimeMs,
    socket,
    snapshot,
    accepts: isOpen,
    stateDir,
    guardian: guardian?.pid,
    arrived: totals['handedOff']! + totals['recovered']!,
    refused: totals['refused']!,
    ends: endsIn(totals),
    guests: guests.map(describeGuest),
  }
}

/** How many guests ended how. */
export const endsOf = (server: Inspected) => endsIn(totalsOf(server))

function endsIn({
  exited,
  stopped,
  handedOver,
  released,
  failed,
}: Readonly<Record<string, number>>) {
  return { exited, stopped, handedOver, released, failed }
}

function totalsOf(server: Inspected): Readonly<Record<string, number>> {
  const counted = measured(table, server.figures()).flatMap(({ samples }) => samples)
  return Object.fromEntries(
    counted.flatMap(({ field, value }) => (field === undefined ? [] : [[field, value] as const])),
  )
}

/** Everything that is known of these guests and their server, for the report of a defect. */
export async function dumpOf(server: Inspected, guests: readonly Guest[]) {
  const { options, refusals, lastRefusal, ended } = server.about()
  const { recovered, notRecovered, swept, guardian } = server
  const { rss, heapUsed } = process.memoryUsage()
  return {
    ...statusOf(server),
    guests: await Promise.all(guests.map(dumpOfGuest)),
    ended,
    totals: totalsOf(server),
    options,
    guardian: guardian && { pid: guardian.pid, guarded: guardian.guarded },
    refusals: { count: refusals, last: lastRefusal && faultOf(lastRefusal) },
    recovered: recovered.map(({ id }) => id),
    notRecovered: notRecovered.map(({ path, error }) => ({ path, error: faultOf(error) })),
    swept,
    process: {
      uid: process.geteuid?.(),
      gid: process.getegid?.(),
      node: process.version,
      kernel: release(),
      arch: arch(),
      rss,
      heapUsed,
      eventLoopUtilization: performance.eventLoopUtilization().utilization,
    },
  }
}

async function dumpOfGuest(guest: Guest) {
  const { regions, endSoFar } = guest
  const { notices, releasing } = guest.lately()
  return {
    ...describeGuest(guest),
    regions: regions.map(({ address, size, offset }) => ({
      address: `0x${address.toString(16)}`,
      size: Number(size),
      offset: Number(offset),
    })),
    notices,
    releasing,
    ended: endSoFar?.reason,
    ...(await statsWithin(patienceMs, guest)),
  }
}

/** Statistics by its fault loop, or that it does not answer, or why it cannot. */
async function statsWithin(ms: number, guest: Guest) {
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<undefined>((resolve) => {
    timer = setTimeout(resolve, ms, undefined).unref()
  })
  try {
    const stats = await Promise.race([guest.stats(), late])
    if (stats === undefined) return { unanswered: true }
    return { stats: { ...stats, copiedBytes: Number(stats.copiedBytes) } }
  } catch (error) {
    return { unanswered: true, why: (error as Error).message }
  } finally {
    clearTimeout(timer)
  }
}

const faultOf = ({ code, message }: { code: string; message: string }) => ({ code, message })
