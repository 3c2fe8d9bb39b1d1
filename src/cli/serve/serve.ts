import { listen, type Server } from '../../index.js'
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
  return await serving(values, snapshot, async ({ output, tally, service, prefetch, ending }) => {
    const server = await listen({ ...listenOptions(values), signal: ending })
    try {
      watch(server, once, output, tally)
      await tellReady(values, output)
      await service.serve(
        server,
        once,
        prefetch && ((guest, number) => prefetchInto(guest, number, prefetch, mode, output)),
      )
    } finally {
      // Whatever failed: an open server would keep the process alive.
      await server.stop()
    }
  })
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
