import { whileAtWork } from '../../abort.js'
import { listen, type Server } from '../../index.js'
import { requireCompanion } from '../arguments/companion.js'
import { several } from '../../numbers.js'
import type { Output } from '../output/output.js'
import { openControl } from './control.js'
import { endingOf } from './ending.js'
import { tellOfGuardian } from './guardian.js'
import { listenOptions } from './listen-options.js'
import type { ServeValues } from './options.js'
import { prefetchInto } from './prefetch.js'
import { serving } from './serving.js'
import { tellOfSystemd } from './systemd.js'
import { snapshotSize } from './snapshot-size.js'
import type { Tally } from './tally.js'

/** Serves guests until it is told to end; resolves with the exit status. */
export async function serveGuests(values: ServeValues): Promise<number> {
  const { snapshot, once, 'prefetch-mode': mode } = values
  requireCompanion(values, 'http-guests', 'http', 'says what --http tells of')
  requireCompanion(values, 'prefetch-mode', 'prefetch', 'says what is done with a trace')
  return await serving(values, snapshot, async (serve) => {
    const { output, tally, service, prefetch, ending, stop } = serve
    const server = await whileAtWork(
      ending,
      async (signal) =>
        await listen({
          ...listenOptions(values),
          onWaiting: (guests) => tellWaiting(guests, values, output),
          signal,
        }),
    )
    const end = endingOf(server, values, ending, output)
    const onSignal = () => void end()
    if (ending.aborted) onSignal()
    ending.addEventListener('abort', onSignal, { once: true })
    try {
      watch(server, once, output, tally)
      tellOfSystemd(server, output)
      tellOfGuardian(server, output)
      tellLeft(server, output)
      await openControl(server, values, stop, output)
      await serveFigures(server, values, output)
      await tellReady(values, output)
      await service.serve(
        server,
        once,
        prefetch && ((guest, number) => prefetchInto(guest, number, prefetch, mode, output)),
      )
    } finally {
      // Whatever failed: an open server would keep the process alive.
      await end()
    }
  })
}

async function serveFigures(server: Server, values: ServeValues, output: Output): Promise<void> {
  if (values.http === undefined) return
  const { url } = await server.http(values.http, { perGuest: values['http-guests'] })
  output.tell('info', { event: 'http', url }, `Figures are at ${url}`)
}

function tellWaiting(guests: number, values: ServeValues, output: Output): void {
  const stateDir = values['state-dir']
  const text = `Waiting for another server to leave ${stateDir}, ready to take over ${several(guests, 'guest')}`
  output.tell('info', { event: 'waiting', stateDir, guests }, text)
}

function tellLeft({ recovered, notRecovered, swept }: Server, output: Output): void {
  for (const { path, error } of notRecovered) {
    const { code, message } = error
    output.tell('warn', { event: 'not-recovered', ledger: path, code }, message)
  }
  if (swept.length > 0) {
    const text = `Removed ${several(swept.length, 'ledger')} of guests that had ended`
    output.tell('info', { event: 'swept', ledgers: swept }, text)
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
