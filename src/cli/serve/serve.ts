import { listen, type Server } from '../../index.js'
import { UsageError } from '../arguments/usage-error.js'
import { several } from '../output/numbers.js'
import type { Output } from '../output/output.js'
import { listenOptions } from './listen-options.js'
import type { ServeValues } from './options.js'
import { prefetchInto } from './prefetch.js'
import { serving } from './serving.js'
import { snapshotSize } from './snapshot-size.js'
import type { Tally } from './tally.js'

/** Serves guests until it is told to end; resolves with the exit status. */
export async function serveGuests(values: ServeValues): Promise<number> {
  const { snapshot, once, 'prefetch-mode': mode } = values
  if (values['hand-over'] && values['state-dir'] === undefined) {
    throw new UsageError('--hand-over leaves guests in a state directory: give --state-dir too')
  }
  return await serving(values, snapshot, async ({ output, tally, service, prefetch, ending }) => {
    const leaves = (signal: unknown) =>
      values['state-dir'] !== undefined && (values['hand-over'] || signal === 'SIGUSR2')
    const server = await listenFor(values, ending)
    const end = () => void (leaves(ending.reason) ? server.handOver() : server.stop())
    if (ending.aborted) end()
    ending.addEventListener('abort', end, { once: true })
    try {
      watch(server, once, output, tally)
      tellRecovered(server, output)
      await tellReady(values, output)
      await service.serve(
        server,
        once,
        prefetch && ((guest, number) => prefetchInto(guest, number, prefetch, mode, output)),
      )
    } finally {
      // Whatever failed: an open server would keep the process alive.
      if (leaves(ending.reason)) await server.handOver()
      else await server.stop()
    }
  })
}

/** Listens; a signal gives up the wait for another server. */
async function listenFor(values: ServeValues, ending: AbortSignal): Promise<Server> {
  const waiting = new AbortController()
  const giveUp = () => waiting.abort(ending.reason)
  if (ending.aborted) giveUp()
  ending.addEventListener('abort', giveUp, { once: true })
  try {
    return await listen({ ...listenOptions(values), signal: waiting.signal })
  } finally {
    ending.removeEventListener('abort', giveUp)
  }
}

function tellRecovered({ recovered, notRecovered }: Server, output: Output): void {
  for (const { code, message } of notRecovered) {
    const level = code === 'ERR_UFFD_RECOVERY_ENDED' ? 'info' : 'warn'
    output.tell(level, { event: 'not-recovered', code }, message)
  }
  if (recovered.length === 0) return
  const ids = recovered.map(({ id }) => id)
  const text = `Took over ${several(ids.length, 'guest')} that had been left`
  output.tell('info', { event: 'recovered', guests: ids }, text)
}

async function tellReady({ socket, snapshot, once }: ServeValues, output: Output): Promise<void> {
  const size = await snapshotSize(snapshot)
  output.tell(
    'info',
    { event: 'ready', socket, snapshot, ...size.facts },
    `Ready: ${socket} serves ${snapshot}${size.text}${once ? ' to one guest' : ''}`,
  )
}

function watch(server: Server, once: boolean, output: Output, tally: Tally): void {
  server.on('refused', ({ code, message }, unseen) => {
    tally.refused += 1 + unseen
    output.tell('error', { event: 'refused', code, unseen }, `A guest was refused: ${message}`)
    if (once) void server.close()
  })
  server.on('trouble', ({ code, message }) => {
    output.tell('warn', { event: 'trouble', code }, message)
  })
}
