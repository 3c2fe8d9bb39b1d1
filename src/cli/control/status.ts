import { bytes, micros, several, whole } from '../../numbers.js'
import { exitStatus } from '../exit-status.js'
import { type Column, columnsOf } from '../output/columns.js'
import { jsonOutput } from '../output/json.js'
import {
  type Ends,
  type GuestStatus,
  type ServerStatus,
  checkProtocol,
  statusIn,
} from './answers.js'
import { ask } from './client.js'

/** Asks a server how it and its guests do; resolves with the exit status. */
export async function status(control: string, timeoutMs: number, asJson: boolean): Promise<number> {
  let found: ServerStatus | undefined
  await ask({ control, path: '/status', timeoutMs }, (line) => {
    checkProtocol(line, control)
    found = statusIn(line, control)
    return 'last'
  })
  const server = found!
  if (asJson) tellLines(server, control)
  else process.stdout.write(`${text(server).join('\n')}\n`)
  return exitStatus.ok
}

function tellLines({ guests, ...server }: ServerStatus, control: string): void {
  const output = jsonOutput('info')
  output.tell('info', { event: 'server', control, ...server }, summary({ ...server, guests }))
  for (const guest of guests) {
    output.tell('info', { event: 'guest', guest: guest.id, ...guest }, `The guest ${guest.id}`)
  }
  output.end()
}

function text(server: ServerStatus): string[] {
  const { version, pid, uptimeMs, socket, snapshot, accepts, stateDir, guardian } = server
  const width = process.stdout.isTTY ? (process.stdout.columns || 80) - 1 : Infinity
  return [
    `uffd-rs ${version}, process ${pid}, for ${micros(uptimeMs * 1000)}`,
    `  serves     ${snapshot}`,
    `  on         ${socket}${accepts ? '' : ', where it accepts no more guests'}`,
    ...(stateDir === undefined ? [] : [`  keeps in   ${stateDir}`]),
    ...(guardian === undefined ? [] : [`  guardian   process ${guardian}`]),
    `  guests     ${summary(server)}`,
    ...(server.guests.length === 0
      ? []
      : ['', ...columnsOf(columnsFor(server.guests), server.guests, width)]),
  ]
}

const summary = ({ guests, refused, ends }: ServerStatus) =>
  [
    `${whole(guests.length)} served now`,
    ...howEnded(ends),
    refused > 0 && `${whole(refused)} refused`,
  ]
    .filter(Boolean)
    .join(', ')

/** `3 exited`, for each end that there was. */
export function howEnded({ exited, stopped, handedOver, released, failed }: Ends): string[] {
  const counts = { exited, stopped, 'handed over': handedOver, released, failed }
  return Object.entries(counts)
    .filter(([, count]) => count > 0)
    .map(([how, count]) => `${whole(count)} ${how}`)
}

const inPages =
  (of: (pages: GuestStatus['pages']) => number): Column<GuestStatus>['of'] =>
  ({ pages, pageSize }) =>
    bytes(of(pages) * pageSize)

const jail: Column<GuestStatus> = { title: 'jail', of: ({ peer }) => peer.root ?? '-' }

const tags: Column<GuestStatus> = {
  title: 'tags',
  of: (guest) =>
    Object.entries(guest.tags)
      .map(([name, tag]) => `${name}=${String(tag)}`)
      .join(' '),
}

const columnsFor = (guests: readonly GuestStatus[]): Column<GuestStatus>[] => [
  { title: 'guest', of: ({ id }) => id },
  { title: 'pid', of: ({ pid }) => `${pid ?? '-'}` },
  ...(guests.some((guest) => Object.keys(guest.tags).length > 0) ? [tags] : []),
  ...(guests.some(({ peer: { root = '/' } }) => root !== '/') ? [jail] : []),
  { title: 'in hand', of: ({ now }) => several(now.faultsInHand, 'fault') },
  { title: 'poisoned', of: ({ pages }) => whole(pages.poisoned) },
  { title: 'p99', of: ({ latencyMicros }) => atMost(latencyMicros.p99) },
  { title: 'memory', of: ({ memoryBytes }) => bytes(memoryBytes) },
  { title: 'faulted', of: inPages(({ clean, zero, dirty }) => clean + zero + dirty) },
  { title: 'unfaulted', of: inPages(({ unfaulted }) => unfaulted) },
  { title: 'removed', of: inPages(({ removed }) => removed) },
  { title: 'p50', of: ({ latencyMicros }) => atMost(latencyMicros.p50) },
  {
    title: 'faults',
    of: ({ counters: { readFaults, writeFaults, protectFaults } }) =>
      whole(readFaults + writeFaults + protectFaults),
  },
  { title: 'prefetching', of: ({ now }) => several(now.prefaultPendingPages, 'page') },
  { title: 'tracking', of: ({ tracking }) => tracking },
]

/** A latency is known by the bucket that it is in. */
const atMost = (latency: number) => (Number.isFinite(latency) ? micros(latency) : 'over 10 s')
