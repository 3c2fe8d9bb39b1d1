import native, {
  type ErrorInfo,
  type NativeTrace,
  type TraceSnapshot,
  type TraceSummary,
} from '#native'
import { calling, fromNative } from '../native-errors.js'
import { type PageRange } from '../page-range.js'
import { arrayOf, type Check, filePath, object, oneOf, optional, options } from '../validate.js'
import { checkEntries, entryAt, toWords, type TraceEntry } from './entries.js'

/** A page size that guests can have, in bytes. */
export type PageSize = 4096 | 2097152

/** Which snapshot a trace is to belong to. */
export interface LoadTraceOptions {
  /** The memory file; the trace of any other is refused. Without it, any trace is loaded. */
  readonly snapshot?: string | undefined
}

/** On what first touches were recorded. */
export interface RecordedOn {
  /** The memory file. */
  readonly snapshot: string
  /** The guest's page size in bytes: the numbers of pages mean nothing without it. */
  readonly pageSize: PageSize
}

const pageSize: Check<PageSize> = (value, at) =>
  value === 4096 || value === 2097152 ? value : at.expected('4096 or 2097152', value)

const checkLoad = object<LoadTraceOptions>({ snapshot: optional(filePath) })
const checkRecordedOn = object<RecordedOn>({ snapshot: filePath, pageSize })
const checkHow = oneOf(['union', 'intersection'])
const checkOthers = arrayOf<Trace>((value, at) =>
  value instanceof Trace ? value : at.expected('a trace', value),
)

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
    this.#native = trace
  }

  /**
   * Loads a trace from a file.
   *
   * @throws {UffdError} ERR_UFFD_TRACE_… that says why it is none, or not of this snapshot.
   */
  static async load(file: string, loadOptions: LoadTraceOptions = {}): Promise<Trace> {
    const path = filePath(file, options().field('file'))
    const { snapshot } = checkLoad(loadOptions, options())
    return Trace.fromNative(await native.loadTrace(path, snapshot))
  }

  /**
   * Makes a trace of first touches that were kept elsewhere, in their order; {@link Guest.trace}
   * makes that of a guest. Reads at most 4 MiB of the snapshot.
   */
  static async record(entries: Iterable<TraceEntry>, recordedOn: RecordedOn): Promise<Trace> {
    const words = toWords(checkEntries(entries, options().field('entries')))
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
  async belongsTo(snapshot: string): Promise<boolean> {
    const path = filePath(snapshot, options().field('snapshot'))
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
    const checked = checkHow(how, options().field('how'))
    const natives = checkOthers(others, options().field('others')).map((other) => other.#native)
    return new Trace(calling(() => this.#native.merge(checked, natives)))
  }

  /** Saves it, all or nothing; resolves when it is on disk. */
  async save(file: string): Promise<void> {
    const error = await this.#native.save(filePath(file, options().field('file')))
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
