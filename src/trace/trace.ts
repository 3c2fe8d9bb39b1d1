import native, {
  type ErrorInfo,
  type NativeTrace,
  type TraceSnapshot,
  type TraceSummary,
} from '#native'
import { calling, fromNative } from '../native-errors.js'
import { type PageRange } from '../page-range.js'
import {
  argument,
  arrayOf,
  type Check,
  type Checked,
  localFile,
  object,
  oneOf,
  optional,
  options,
} from '../validate.js'
import { checkEntries, entryAt, toWords, type TraceEntry } from './entries.js'

/** A page size that guests can have, in bytes. */
export type PageSize = 4096 | 2097152

/** Which snapshot a trace is to belong to. */
export interface LoadTraceOptions {
  /** The memory file; the trace of any other is refused. Without it, any trace is loaded. */
  readonly snapshot?: string | URL | undefined
}

/** On what first touches were recorded. */
export interface RecordedOn {
  /** The memory file. */
  readonly snapshot: string | URL
  /** The guest's page size in bytes: the numbers of pages mean nothing without it. */
  readonly pageSize: PageSize
}

const pageSize: Check<PageSize> = (value, at) =>
  value === 4096 || value === 2097152 ? value : at.expected('4096 or 2097152', value)

const checkLoad = object<Checked<LoadTraceOptions>>({ snapshot: optional(localFile) })
const checkRecordedOn = object<Checked<RecordedOn>>({ snapshot: localFile, pageSize })
const checkHow = oneOf(['union', 'intersection'])
/** A trace. */
export const checkTrace: Check<Trace> = (value, at) =>
  value instanceof Trace ? value : at.expected('a trace', value)

/** A trace, or the file of one. */
export const checkTraceOrFile: Check<Trace | string> = (value, at) => {
  if (value instanceof Trace) return value
  if (typeof value === 'string' || value instanceof URL) return localFile(value, at)
  return at.expected('a trace or the file of one', value)
}

const checkOthers = arrayOf(checkTrace)

/**
 * Which pages a guest touched first, in order, each once; of which snapshot, in pages of which
 * size. Recorded from one guest it prefaults the next. Never changes.
 *
 * ```js
 * await (await guest.trace()).save('boot.trace')
 * // and for the next guest of the same snapshot:
 * await next.prefault(await Trace.load('boot.trace'))
 * ```
 */
export class Trace implements Iterable<TraceEntry> {
  readonly #native: NativeTrace
  #words: BigUint64Array | undefined

  private constructor(trace: NativeTrace) {
    if (!(trace instanceof native.NativeTrace)) {
      argument('trace').fail('A trace comes from Trace.load, Trace.record or a guest', trace)
    }
    this.#native = trace
  }

  /**
   * Loads a trace from a file.
   *
   * @throws {UffdError} ERR_UFFD_TRACE_… that says why it is none, or not of this snapshot.
   */
  static async load(file: string | URL, loadOptions: LoadTraceOptions = {}): Promise<Trace> {
    const path = localFile(file, argument('file'))
    const { snapshot } = checkLoad(loadOptions, options())
    return Trace.fromNative(await native.loadTrace(path, snapshot))
  }

  /**
   * Makes a trace of first touches that were kept elsewhere, in their order; {@link Guest.trace}
   * makes that of a guest. Reads at most 4 MiB of the snapshot.
   */
  static async record(entries: Iterable<TraceEntry>, recordedOn: RecordedOn): Promise<Trace> {
    const words = toWords(checkEntries(entries, argument('entries')))
    const { snapshot, pageSize: size } = checkRecordedOn(recordedOn, options())
    return Trace.fromNative(await native.recordTrace(snapshot, size, words))
  }

  /** @internal */
  static fromNative(result: NativeTrace | ErrorInfo): Trace {
    if ('code' in result) throw fromNative(result)
    return new Trace(result)
  }

  /** @internal */
  get native(): NativeTrace {
    return this.#native
  }

  /** The snapshot it belongs to. */
  get snapshot(): TraceSnapshot {
    return this.#native.snapshot
  }

  /** The page size it counts in, in bytes: that of the guests it can be used for. */
  get pageSize(): PageSize {
    return this.#native.pageSize as PageSize
  }

  /** The program that made it, and its version. */
  get createdBy(): string {
    return this.#native.createdBy
  }

  /** What it amounts to. */
  get summary(): TraceSummary {
    return this.#native.summary()
  }

  /** How many pages it has. */
  get length(): number {
    return this.#entries.length / 2
  }

  /** The entry of this number, from 0. */
  at(index: number): TraceEntry | undefined {
    return entryAt(this.#entries, index)
  }

  /** Its entries, in the order of the touches. */
  *[Symbol.iterator](): IterableIterator<TraceEntry> {
    for (let index = 0; index < this.length; index++) yield this.at(index)!
  }

  /**
   * The pages to prefault, in the order of the trace, with those that were filled around its
   * faults; without those the guest had given back before it touched them.
   */
  get pages(): PageRange[] {
    const pairs = this.#native.ranges()
    return Array.from({ length: pairs.length / 2 }, (_, index) => {
      return { start: pairs[2 * index]!, end: pairs[2 * index + 1]! }
    })
  }

  /**
   * Whether a memory file is the snapshot it belongs to, whatever its name. Whether it suits a
   * guest, its page size included, says {@link Guest.accepts}.
   *
   * @throws {UffdError} ERR_UFFD_TRACE_SNAPSHOT if the file cannot be read.
   */
  async belongsTo(snapshot: string | URL): Promise<boolean> {
    const path = localFile(snapshot, argument('snapshot'))
    const answer = await this.#native.belongsTo(path)
    if (typeof answer !== 'boolean') throw fromNative(answer)
    return answer
  }

  /**
   * This trace and others of the same snapshot as one: pages that any run touched (`union`), or
   * all (`intersection`), in the order of this one.
   *
   * @throws {UffdError} ERR_UFFD_TRACE_WRONG_SNAPSHOT if one belongs to another.
   */
  merge(how: 'union' | 'intersection', others: readonly Trace[]): Trace {
    const checked = checkHow(how, argument('how'))
    const natives = checkOthers(others, argument('others')).map((other) => other.#native)
    return new Trace(calling(() => this.#native.merge(checked, natives)))
  }

  /** Saves it, all or nothing; resolves when it is on disk. */
  async save(file: string | URL): Promise<void> {
    const error = await this.#native.save(localFile(file, argument('file')))
    if (error) throw fromNative(error)
  }

  /** The same as JSON for people, one entry a line. */
  toText(): string {
    return this.#native.toJson()
  }

  get #entries(): BigUint64Array {
    this.#words ??= this.#native.words()
    return this.#words
  }
}
