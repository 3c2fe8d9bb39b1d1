import native from '#native'
import { type PageSize } from '../trace/trace.js'
import { calling } from '../native-errors.js'
import {
  type Check,
  integer,
  localFile,
  object,
  optional,
  options,
  type Shape,
} from '../validate.js'

/** The memory of a guest, as its snapshot has it: contents by which every page can be told. */
export interface GuestMemory {
  /** How many pages. */
  readonly pages: number
  /**
   * Bytes of a page; those of 2 MiB come from the host's pool of huge pages.
   * @default 4096
   */
  readonly pageSize?: PageSize | undefined
  /**
   * Which contents: two snapshots with different seeds have no word in common.
   * @default 0
   */
  readonly seed?: number | undefined
  /**
   * How many of 1000 runs of 64 KiB are zeros, and holes of the file.
   * @default 0
   */
  readonly zeroPerMille?: number | undefined
}

const pageSize: Check<PageSize> = (value, at) =>
  value === 4096 || value === 2_097_152 ? value : at.expected('4096 or 2097152', value)

/** How each field is checked. */
export const checkMemory: Shape<GuestMemory> = {
  pages: integer({ min: 1, max: 2 ** 32 - 1, unit: 'pages' }),
  pageSize: optional(pageSize),
  seed: optional(integer({ max: 2 ** 32 - 1 })),
  zeroPerMille: optional(integer({ max: 1000 })),
}

/** A snapshot to be written. */
export interface SnapshotOptions extends GuestMemory {
  /** The file. */
  readonly path: string | URL
}

const checkOptions = object<GuestMemory & { path: string }>({ path: localFile, ...checkMemory })

/** Writes a memory file for guest processes and stand-ins of the same pages and seed. */
export function writeSnapshot(snapshotOptions: SnapshotOptions): void {
  const checked = checkOptions(snapshotOptions, options())
  calling(() =>
    native.writeGuestSnapshot(checked as Parameters<typeof native.writeGuestSnapshot>[0]),
  )
}
