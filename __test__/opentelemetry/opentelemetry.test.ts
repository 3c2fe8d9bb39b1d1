// Against the real SDK of OpenTelemetry.
import { join } from 'node:path'
import { SpanStatusCode } from '@opentelemetry/api'
import { MeterProvider, MetricReader, type MetricData } from '@opentelemetry/sdk-metrics'
import {
  BasicTracerProvider,
  InMemorySpanExporter,
  SimpleSpanProcessor,
} from '@opentelemetry/sdk-trace-base'
import test from 'ava'
import { table } from '../../src/metrics/table.js'
import { observe, tracedListen, tracedRestore } from '../../src/opentelemetry/index.js'
import { snapshotFile, Stage, temporaryDirectory } from '../support/stage.js'

class Reader extends MetricReader {
  protected async onForceFlush(): Promise<void> {}
  protected async onShutdown(): Promise<void> {}

  /** Every metric that is collected now, by its name. */
  async read(): Promise<Map<string, MetricData>> {
    const { resourceMetrics, errors } = await this.collect()
    if (errors.length > 0) throw new AggregateError(errors)
    const all = resourceMetrics.scopeMetrics.flatMap(({ metrics }) => metrics)
    return new Map(all.map((metric) => [metric.descriptor.name, metric]))
  }
}

function sum(all: Map<string, MetricData>, name: string): number {
  const points = all.get(name)?.dataPoints ?? []
  return points.reduce((total, { value }) => total + Number(value), 0)
}

test('every metric is observed, with what it was described as', async (t) => {
  const stage = await Stage.open(t, 64)
  const reader = new Reader()
  const provider = new MeterProvider({ readers: [reader] })
  const meter = provider.getMeter('test')
  const end = observe(stage.server, { meter, attributes: { server: 'one' } })
  const { guest, process } = await stage.guest()
  await process.wrong(0, 64, 'source')
  const { faults } = await guest.stats()

  let all = await reader.read()
  while (sum(all, 'uffd.faults') < faults) all = await reader.read()
  for (const { name, kind, help, unit } of table) {
    const dotted = name.replace('_', '.')
    const observed = all.get(kind === 'histogram' ? `${dotted}.count` : dotted)
    t.is(observed?.descriptor.description, help, name)
    if (unit === 'bytes') t.is(observed?.descriptor.unit, 'By')
    for (const { attributes } of observed!.dataPoints) t.is(attributes['server'], 'one')
  }
  t.is(sum(all, 'uffd.faults'), faults)
  t.is(sum(all, 'uffd.fault_seconds.count'), faults)
  t.is(sum(all, 'uffd.pages'), 64)
  const states = all.get('uffd.pages')!.dataPoints.map(({ attributes }) => attributes['state'])
  t.true(states.includes('removed'))

  // Nobody looks any more: the SDK keeps what it was told last.
  end()
  await process.ask({ op: 'madvise', page: 0, count: 64 })
  await process.wrong(0, 64, 'zeros')
  t.true((await guest.stats()).faults > faults)
  t.is(sum(await reader.read(), 'uffd.faults'), faults)
  await provider.shutdown()
})

/** A tracer, and the spans that have ended. */
function tracing() {
  const exporter = new InMemorySpanExporter()
  const provider = new BasicTracerProvider({ spanProcessors: [new SimpleSpanProcessor(exporter)] })
  return { tracer: provider.getTracer('test'), spans: () => exporter.getFinishedSpans() }
}

test('listening is a span, with the guests that were taken over', async (t) => {
  const { tracer, spans } = tracing()
  const directory = temporaryDirectory(t)
  const snapshot = snapshotFile(t, 64)
  const stateDir = join(directory, 'state')
  const socket = join(directory, 'uffd.sock')
  const server = await tracedListen({ socket, snapshot, stateDir }, { tracer })
  await server.stop()
  const [span] = spans()
  t.is(span!.name, 'uffd.listen')
  t.like(span!.attributes, {
    'uffd.socket': socket,
    'uffd.snapshot': snapshot,
    'uffd.state_dir': stateDir,
    'uffd.recovered': 0,
  })
  t.is(span!.status.code, SpanStatusCode.UNSET)
})

test('what fails is said in its span, with its code and step', async (t) => {
  const { tracer, spans } = tracing()
  const directory = temporaryDirectory(t)
  const missing = join(directory, 'missing')
  const socket = join(directory, 'uffd.sock')
  await t.throwsAsync(tracedListen({ socket, snapshot: missing }, { tracer }), {
    code: 'ERR_UFFD_SNAPSHOT_MISSING',
  })
  const options = { apiSocket: missing, snapshotState: missing, snapshot: snapshotFile(t, 64) }
  await t.throwsAsync(tracedRestore(options, { tracer }))
  const [listening, restoring] = spans()
  t.like(listening, {
    name: 'uffd.listen',
    attributes: { 'error.type': 'ERR_UFFD_SNAPSHOT_MISSING' },
  })
  t.is(listening!.status.code, SpanStatusCode.ERROR)
  t.is(listening!.events[0]!.name, 'exception')
  t.like(restoring, { name: 'uffd.restore', attributes: { 'uffd.step': 'version' } })
})
