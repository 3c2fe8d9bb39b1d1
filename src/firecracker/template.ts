import { resolve } from 'node:path'
import {
  boolean,
  filePath,
  integer,
  object,
  oneOf,
  optional,
  Place,
  type Check,
} from '../validate.js'
import { hugePagesValues, maxVcpus, requireHugePages, type HugePages } from './machine-config.js'
import { resolveFreePages, type FreePageChoice } from './reporting.js'
import { FirecrackerVersion } from './version.js'

/** The balloon of a sandbox template. */
export interface TemplateBalloon {
  /** Memory taken from the guest at boot, in MiB; at most `memSizeMib`. @default 0 */
  readonly amountMib?: number | undefined
  /** Deflate when the guest runs out of memory. @default true */
  readonly deflateOnOom?: boolean | undefined
  /** Seconds between two statistics of the guest, 0 to 65535; 0 is none. @default 0 */
  readonly statsPollingIntervalS?: number | undefined
}

/** Where the snapshot of a template lies. */
export interface TemplateSnapshot {
  /** The state of the microVM. A relative path starts at the template's folder. */
  readonly statePath: string
  /** The guest's memory. A relative path starts at the template's folder. */
  readonly memoryPath: string
}

/** A sandbox template, as its JSON file says it. */
export interface TemplateInput extends FreePageChoice {
  /** The Firecracker that boots and restores it, such as `1.14.1`. */
  readonly firecracker: string
  /** Guest memory in MiB; even unless `hugePages` is `None`. */
  readonly memSizeMib: number
  /** Number of vCPUs, 1 to 32. @default 1 */
  readonly vcpuCount?: number | undefined
  /** The pages that back guest memory; `Transparent` from Firecracker 1.17.0. @default 'None' */
  readonly hugePages?: HugePages | undefined
  /** Track written pages from boot on, so that diff snapshots can be made. @default false */
  readonly trackDirtyPages?: boolean | undefined
  /**
   * The balloon device.
   * @default one of 0 MiB if reporting or hinting needs it, else none
   */
  readonly balloon?: TemplateBalloon | undefined
  /** The snapshot made from this template. @default none yet */
  readonly snapshot?: TemplateSnapshot | undefined
}

/** A sandbox template with everything decided that was left out. */
export interface Template {
  /** The Firecracker that boots and restores it. */
  readonly firecracker: FirecrackerVersion
  /** Guest memory in MiB. */
  readonly memSizeMib: number
  /** Number of vCPUs. */
  readonly vcpuCount: number
  /** The pages that back guest memory. */
  readonly hugePages: HugePages
  /** Whether written pages are tracked from boot on. */
  readonly trackDirtyPages: boolean
  /** Whether the guest reports its free pages. */
  readonly freePageReporting: boolean
  /** Whether it can be asked for them. */
  readonly freePageHinting: boolean
  /** Absent: the microVM has no balloon device. */
  readonly balloon?: ResolvedBalloon
  /** Absent: there is no snapshot yet. */
  readonly snapshot?: TemplateSnapshot
}

/** A template's balloon with its defaults filled in. */
export interface ResolvedBalloon {
  /** Memory taken from the guest at boot, in MiB. */
  readonly amountMib: number
  /** Whether it deflates when the guest runs out of memory. */
  readonly deflateOnOom: boolean
  /** Seconds between two statistics of the guest; 0 is none. */
  readonly statsPollingIntervalS: number
}

/** A template that was checked, and not only something that looks like its file. */
export const checkTemplate: Check<Template> = (value, at) => {
  const { firecracker } = (value ?? {}) as Partial<Template>
  return firecracker instanceof FirecrackerVersion
    ? (value as Template)
    : at.expected('what readTemplate or parseTemplate returned', value)
}

const version: Check<string> = (value, at) => {
  try {
    return FirecrackerVersion.parse(value as string).toString()
  } catch {
    return at.expected('a version of Firecracker such as "1.14.1"', value)
  }
}

const check = object<TemplateInput>({
  firecracker: version,
  memSizeMib: integer({ min: 1, unit: 'MiB' }),
  vcpuCount: optional(integer({ min: 1, max: maxVcpus, unit: 'vCPUs' })),
  hugePages: optional(oneOf(hugePagesValues)),
  trackDirtyPages: optional(boolean),
  freePageReporting: optional(boolean),
  freePageHinting: optional(boolean),
  balloon: optional(
    object<TemplateBalloon>({
      amountMib: optional(integer({ unit: 'MiB' })),
      deflateOnOom: optional(boolean),
      statsPollingIntervalS: optional(integer({ max: 2 ** 16 - 1, unit: 'seconds' })),
    }),
  ),
  snapshot: optional(object<TemplateSnapshot>({ statePath: filePath, memoryPath: filePath })),
})

/**
 * Checks a template and decides what it leaves out. Throws an error that names
 * the field, or both versions where Firecracker is too old for what it asks for.
 * Relative paths start at `directory`, by default the current one.
 */
export function parseTemplate(input: unknown, directory = '.'): Template {
  const at = new Place('ERR_UFFD_INVALID_TEMPLATE', 'template field')
  const given = check(input, at)
  refuseOddHugePages(given, at)
  const firecracker = FirecrackerVersion.parse(given.firecracker)
  requireHugePages(firecracker, given.hugePages)
  const freePages = resolveFreePages(firecracker, given)
  const balloon = resolveBalloon(
    given,
    freePages.freePageReporting || freePages.freePageHinting,
    at,
  )
  return {
    firecracker,
    memSizeMib: given.memSizeMib,
    vcpuCount: given.vcpuCount ?? 1,
    hugePages: given.hugePages ?? 'None',
    trackDirtyPages: given.trackDirtyPages ?? false,
    ...freePages,
    ...(balloon && { balloon }),
    ...(given.snapshot && { snapshot: resolvePaths(given.snapshot, directory) }),
  }
}

function refuseOddHugePages({ memSizeMib, hugePages = 'None' }: TemplateInput, at: Place): void {
  if (hugePages !== 'None' && memSizeMib % 2 !== 0) {
    at.field('memSizeMib').expected(`even, because hugePages is "${hugePages}"`, memSizeMib)
  }
}

/** Reporting and hinting are done by the balloon device, so they bring one along. */
function resolveBalloon(
  { balloon, memSizeMib }: TemplateInput,
  needed: boolean,
  at: Place,
): ResolvedBalloon | undefined {
  if (balloon === undefined && !needed) return undefined
  const { amountMib = 0, deflateOnOom = true, statsPollingIntervalS = 0 } = balloon ?? {}
  if (amountMib > memSizeMib) {
    const most = `at most memSizeMib, which is ${memSizeMib}`
    at.field('balloon').field('amountMib').expected(most, amountMib)
  }
  return { amountMib, deflateOnOom, statsPollingIntervalS }
}

function resolvePaths(snapshot: TemplateSnapshot, directory: string): TemplateSnapshot {
  return {
    statePath: resolve(directory, snapshot.statePath),
    memoryPath: resolve(directory, snapshot.memoryPath),
  }
}
