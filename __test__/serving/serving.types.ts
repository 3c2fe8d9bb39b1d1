// Checked by tsc alone: what the types promise to a caller, and what they refuse.
import {
  type EndReason,
  type Guest,
  type GuestEnd,
  listen,
  type Notice,
  type PageState,
  type Region,
  type Server,
  type Stats,
  Trace,
  type TraceEntry,
  type UffdError,
} from '../../src/index.js'
import { same, type Same } from '../support/types.js'

declare const server: Server
declare const guest: Guest

same<Same<ReturnType<typeof listen>, Promise<Server>>>()
same<Same<Awaited<ReturnType<typeof server.accept>>, Guest>>()
same<Same<typeof server.guests, readonly Guest[]>>()
same<Same<typeof guest.ended, Promise<GuestEnd>>>()
same<Same<GuestEnd['reason'], EndReason>>()
same<Same<EndReason, 'guest-exited' | 'stopped' | 'handed-over' | 'released' | 'failed'>>()
same<Same<GuestEnd['error'], UffdError | undefined>>()
same<Same<Region['address'], bigint>>()
same<Same<Stats['copiedBytes'], bigint>>()
same<Same<Stats['faults'], number>>()
same<Same<PageState, 'unfaulted' | 'faulted' | 'removed' | 'poisoned'>>()

const disposable: AsyncDisposable[] = [server, guest]
void disposable
const iterable: AsyncIterable<Guest> = server
void iterable

void listen({ socket: 's', snapshot: 'm', dirtyTracking: 'on', faultAround: 16 })
// @ts-expect-error: the snapshot is required
void listen({ socket: 's' })
// @ts-expect-error: not one of the values
void listen({ socket: 's', snapshot: 'm', onUnservable: 'ignore' })
// @ts-expect-error: no such option
void listen({ socket: 's', snapshot: 'm', once: true })

guest.on('stats', ({ latency, pages }) => void [latency.p99.toFixed(), pages.faulted])
guest.on('trace', (entries) => same<Same<typeof entries, readonly TraceEntry[]>>())
guest.on('notice', (notice) => same<Same<typeof notice, Notice>>())
guest.on('end', (end) => same<Same<typeof end, GuestEnd>>())
server.on('refused', (error, unseen) => void [error.code, unseen.toFixed()])

void guest.prefault('all', { signal: AbortSignal.timeout(1) })
void guest.prefault([1, { start: 2, end: 4 }])
void guest.prefault(new Set([1]))
declare const trace: Trace
void guest.prefault(trace)
same<Same<ReturnType<typeof guest.trace>, Promise<Trace>>>()
same<Same<ReturnType<typeof guest.accepts>, Promise<boolean>>>()
// @ts-expect-error: pages, not text
void guest.prefault(['1'])
// @ts-expect-error: page numbers mean nothing without a page size
void Trace.record([], { snapshot: 'm' })
