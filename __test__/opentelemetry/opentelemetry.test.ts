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
import {
  observe,
  tracedListen,
  tracedPauseAndSnapshot,
  tracedRestore,
} from '../../src/opentelemetry/index.js'
import { Firecracker } from '../support/firecracker.js'
import { Place } from '../support/place.js'
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

test('a guest that is taken over is an event of the span that does it', async (t) => {
  const { tracer, spans } = tracing()
  const place = new Place(t)
  const process = await place.left()
  const server = await tracedListen(place.options(), { tracer })
  t.teardown(() => server.stop())
  const [span, ...others] = spans()
  t.is(others.length, 0)
  t.is(span!.attributes['uffd.recovered'], 1)
  t.is(span!.status.code, SpanStatusCode.UNSET)
  const { id } = server.recovered[0]!
  t.like(span!.events, [
    { name: 'uffd.recovered', attributes: { 'uffd.guest': id, 'process.pid': process.pid } },
  ])
})

test('so is one that cannot be, with the reason', async (t) => {
  const { tracer, spans } = tracing()
  const place = new Place(t)
  await place.left()
  const other = snapshotFile(t, 128)
  const server = await tracedListen({ ...place.options(), snapshot: other }, { tracer })
  t.teardown(() => server.stop())
  const { path, error } = server.notRecovered[0]!
  const [span] = spans()
  t.is(span!.attributes['uffd.recovered'], 0)
  t.like(span!.events, [
    { name: 'uffd.not_recovered', attributes: { 'uffd.ledger': path, 'error.type': error.code } },
  ])
})

test('a restore and a snapshot that succeed are spans with what came of them', async (t) => {
  const { tracer, spans } = tracing()
  const firecracker = await Firecracker.start(t)
  const before = Date.now()
  const options = { ...firecracker.options, dirtyTracking: 'on' as const }
  const vm = await tracedRestore(options, { tracer })
  t.teardown(() => vm.stop())
  await firecracker.guest.ask({ op: 'write', page: 3, count: 2, stamp: 9 })
  const directory = temporaryDirectory(t)
  const target = {
    snapshotState: join(directory, 'state'),
    snapshot: join(directory, 'mem'),
    resume: true,
  }
  const { dirtyPages } = await tracedPauseAndSnapshot(vm, target, { tracer })
  const [restoring, snapshotting] = spans()
  t.is(restoring!.name, 'uffd.restore')
  t.deepEqual(restoring!.attributes, {
    'uffd.snapshot': firecracker.snapshot,
    'uffd.guest': vm.guest.id,
    'uffd.resumed': true,
  })
  t.is(snapshotting!.name, 'uffd.pause_and_snapshot')
  t.deepEqual(snapshotting!.attributes, {
    'uffd.guest': vm.guest.id,
    'uffd.dirty_pages': 2,
    'uffd.empty_pages': dirtyPages.emptyCount,
    'uffd.dirty_pages.exact': true,
    'uffd.resumed': true,
  })
  for (const { startTime, endTime, status, events } of [restoring!, snapshotting!]) {
    t.is(status.code, SpanStatusCode.UNSET)
    t.is(events.length, 0)
    // Its times are those of the work.
    const millis = ([seconds, nanos]: [number, number]) => seconds * 1e3 + nanos / 1e6
    t.true(millis(endTime) > millis(startTime))
    t.true(Math.floor(millis(startTime)) >= before - 1)
  }
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
