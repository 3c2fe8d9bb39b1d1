import { listen, SavedTrace, type Server } from '../../index.js'
import { exitStatus } from '../exit-status.js'
import { humanOutput } from '../output/human.js'
import { jsonOutput } from '../output/json.js'
import type { Output } from '../output/output.js'
import { warnOfHost } from './host.js'
import { listenOptions } from './listen-options.js'
import { type ServeValues, statsEvery } from './options.js'
import { Service } from './service.js'
import { onSignals } from './signals.js'
import { snapshotSize } from './snapshot-size.js'
import { Tally } from './tally.js'
import { TraceFile } from './trace-file.js'

/** Serves guests until it is told to end; resolves with the exit status. */
export async function serveGuests(values: ServeValues): Promise<number> {
  const level = values['log-level'] ?? 'info'
  const asJson = values.json ?? !process.stdout.isTTY
  const output = asJson ? jsonOutput(level) : humanOutput(level)
  try {
    return await run(values, output)
  } finally {
    output.end()
  }
}

async function run(values: ServeValues, output: Output): Promise<number> {
  const { snapshot } = values
  const prefetch =
    values.prefetch === undefined ? undefined : await SavedTrace.load(values.prefetch, { snapshot })
  const traceFile =
    values.trace === undefined ? undefined : await TraceFile.open(values.trace, snapshot, prefetch)
  warnOfHost(output)

  const tally = new Tally()
  const withStats = statsEvery(values) !== undefined
  const service = new Service({ output, tally, prefetch, traceFile, withStats })
  const ending = new AbortController()
  const forget = onSignals((signal) => {
    const text = `${signal}: ending; once more to end at once`
    output.tell('info', { event: 'stopping', signal }, text)
    ending.abort()
  })
  try {
    const server = await listen({ ...listenOptions(values), signal: ending.signal })
    watch(server, values.once, output, tally)
    await tellReady(values, output)
    await service.serve(server, values.once)
  } catch (error) {
    if (!ending.signal.aborted) throw error
  } finally {
    forget()
  }
  tally.summarise(output)
  return tally.hasFailed ? exitStatus.failed : exitStatus.ok
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
