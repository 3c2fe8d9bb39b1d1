import { type Attributes, type Span, SpanStatusCode, trace, type Tracer } from '@opentelemetry/api'
import {
  pauseAndSnapshot,
  type PauseAndSnapshotOptions,
  restore,
  type RestoredVm,
  type RestoreOptions,
  type SnapshotMade,
  type SnapshotTarget,
} from '../restore/index.js'
import { listen } from '../server/listen.js'
import type { ListenOptions } from '../server/options.js'
import type { Server } from '../server/server.js'

/** How spans are made. */
export interface TracedOptions {
  /**
   * What makes them.
   * @default that of the global provider, named `uffd-rs`
   */
  readonly tracer?: Tracer | undefined
}

/** `listen` with a span `uffd.listen`, which has an event for each guest that was taken over. */
export async function tracedListen(
  options: ListenOptions,
  tracedOptions: TracedOptions = {},
): Promise<Server> {
  const { socket, snapshot, stateDir } = options
  const attributes = {
    'uffd.socket': String(socket),
    'uffd.snapshot': String(snapshot),
    ...(stateDir !== undefined && { 'uffd.state_dir': String(stateDir) }),
  }
  return await during('uffd.listen', attributes, tracedOptions, async (span) => {
    const server = await listen(options)
    for (const { id, pid } of server.recovered) {
      const of = { 'uffd.guest': id, ...(pid !== undefined && { 'process.pid': pid }) }
      span.addEvent('uffd.recovered', of)
    }
    for (const { path, error } of server.notRecovered) {
      span.addEvent('uffd.not_recovered', { 'uffd.ledger': path, 'error.type': error.code })
    }
    span.setAttribute('uffd.recovered', server.recovered.length)
    return server
  })
}

/** `restore` with a span `uffd.restore`; a step that fails is named by `uffd.step`. */
export async function tracedRestore(
  options: RestoreOptions,
  tracedOptions: TracedOptions = {},
): Promise<RestoredVm> {
  const { snapshot } = options
  // A template may name it instead.
  const attributes = snapshot === undefined ? {} : { 'uffd.snapshot': String(snapshot) }
  return await during('uffd.restore', attributes, tracedOptions, async (span) => {
    const vm = await restore(options)
    span.setAttributes({ 'uffd.guest': vm.guest.id, 'uffd.resumed': vm.resumed })
    return vm
  })
}

/** `pauseAndSnapshot` with a span `uffd.pause_and_snapshot`. */
export async function tracedPauseAndSnapshot(
  vm: SnapshotTarget,
  options: PauseAndSnapshotOptions,
  tracedOptions: TracedOptions = {},
): Promise<SnapshotMade> {
  const attributes = { 'uffd.guest': vm.guest.id }
  return await during('uffd.pause_and_snapshot', attributes, tracedOptions, async (span) => {
    const made = await pauseAndSnapshot(vm, options)
    const { dirtyCount, emptyCount, exact } = made.dirtyPages
    span.setAttributes({
      'uffd.dirty_pages': dirtyCount,
      'uffd.empty_pages': emptyCount,
      'uffd.dirty_pages.exact': exact,
      'uffd.resumed': made.resumed,
    })
    return made
  })
}

/** Does work in a span, which is the parent of what it does over HTTP. */
async function during<T>(
  name: string,
  attributes: Attributes,
  { tracer = trace.getTracer('uffd-rs') }: TracedOptions,
  work: (span: Span) => Promise<T>,
): Promise<T> {
  return await tracer.startActiveSpan(name, { attributes }, async (span) => {
    try {
      return await work(span)
    } catch (error) {
      const { code, step, message } = error as { code?: string; step?: string; message?: string }
      span.recordException(error as Error)
      span.setStatus({ code: SpanStatusCode.ERROR, ...(message !== undefined && { message }) })
      if (code !== undefined) span.setAttribute('error.type', code)
      if (step !== undefined) span.setAttribute('uffd.step', step)
      throw error
    } finally {
      span.end()
    }
  })
}
