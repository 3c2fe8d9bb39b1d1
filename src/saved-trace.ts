import native, {
  type ErrorInfo,
  type NativeSavedTrace,
  type TraceSnapshot,
  type TraceSummary,
} from '#native'
import { type PageRange } from './guest/pages.js'
import { calling, fromNative } from './native-errors.js'
import { Trace } from './trace.js'
import { arrayOf, type Check, filePath, object, oneOf, optional, options } from './validate.js'

/** Which snapshot a trace is to belong to. */
export interface LoadTraceOptions {
  /** The memory file; the trace of any other is refused. Without it, any trace is loaded. */
  readonly snapshot?: string | undefined
}

/** On what a trace was recorded. */
export interface RecordedOn {
  /** The memory file. */
  readonly snapshot: string
  /**
   * The guest's page size in bytes: `guest.pageSize`.
   * @default 4096
   */
  readonly pageSize?: 4096 | 2097152 | undefined
}

const trace: Check<Trace> = (value, at) =>
  value instanceof Trace ? value : at.expected('a trace', value)

const pageSize: Check<4096 | 2097152> = (value, at) =>
  value === 4096 || value === 2097152 ? value : at.expected('4096 or 2097152', value)

const checkLoad = object<LoadTraceOptions>({ snapshot: optional(filePath) })
const checkRecordedOn = object<RecordedOn>({ snapshot: filePath, pageSize: optional(pageSize) })
const checkHow = oneOf(['union', 'intersection'])
const checkOthers = arrayOf<SavedTrace>((value, at) =>
  value instanceof SavedTrace ? value : at.expected('a saved trace', value),
)

/**
 * A trace together with the snapshot it belongs to, as files keep it. Never changes.
 *
 * ```js
 * await (await SavedTrace.record(await guest.trace(), { snapshot })).save('boot.trace')
 * // and for the next guest:
 * await guest.prefault((await SavedTrace.load('boot.trace', { snapshot })).pages)
 * ```
 */
export class SavedTrace {
  readonly #native: NativeSavedTrace

  private constructor(saved: NativeSavedTrace) {
    this.#native = saved
  }

  /**
   * Loads a trace from a file.
   *
   * @throws {UffdError} ERR_UFFD_TRACE_… that says why it is none, or not of this snapshot.
   */
  static async load(file: string, loadOptions: LoadTraceOptions = {}): Promise<SavedTrace> {
    const path = filePath(file, options().field('file'))
    const { snapshot } = checkLoad(loadOptions, options())
    return new SavedTrace(orThrow(await native.loadTrace(path, snapshot)))
  }

  /** Takes first touches down as those of a snapshot. Reads at most 4 MiB of it. */
  static async record(touches: Trace, recordedOn: RecordedOn): Promise<SavedTrace> {
    const { words } = trace(touches, options().field('trace'))
    const { snapshot, pageSize: size = 4096 } = checkRecordedOn(recordedOn, options())
    return new SavedTrace(orThrow(await native.recordTrace(snapshot, size, words)))
  }

  /** The snapshot it belongs to. */
  get snapshot(): TraceSnapshot {
    return this.#native.snapshot
  }

  /** The program that made it, and its version. */
  get createdBy(): string {
    return this.#native.createdBy
  }

  /** What it amounts to. */
  get summary(): TraceSummary {
    return this.#native.summary()
  }

  /** The first touches, in order. */
  get trace(): Trace {
    return Trace.of(this.#native.words())
  }

  /**
   * The pages to prefault, in the order of the trace with neighbours joined; without those the
   * guest had given back before it touched them.
   */
  get pages(): PageRange[] {
    const pairs = this.#native.ranges()
    return Array.from({ length: pairs.length / 2 }, (_, index) => {
      return { start: pairs[2 * index]!, end: pairs[2 * index + 1]! }
    })
  }

  /** The same as JSON for people, one entry a line. */
  toText(): string {
    return this.#native.toJson()
  }

  /**
   * This trace and others of the same snapshot as one: pages that any run touched (`union`), or
   * all (`intersection`), in the order of this one.
   *
   * @throws {UffdError} ERR_UFFD_TRACE_WRONG_SNAPSHOT if one belongs to another.
   */
  merge(how: 'union' | 'intersection', others: readonly SavedTrace[]): SavedTrace {
    const checked = checkHow(how, options().field('how'))
    const natives = checkOthers(others, options().field('others')).map((other) => other.#native)
    return new SavedTrace(calling(() => this.#native.merge(checked, natives)))
  }

  /** Saves it, all or nothing; resolves when it is on disk. */
  async save(file: string): Promise<void> {
    const error = await this.#native.save(filePath(file, options().field('file')))
    if (error) throw fromNative(error)
  }
}

function orThrow(result: NativeSavedTrace | ErrorInfo): NativeSavedTrace {
  if ('code' in result) throw fromNative(result)
  return result
}
