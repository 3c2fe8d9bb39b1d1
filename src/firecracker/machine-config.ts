import { boolean, integer, oneOf, optional, options, string } from '../validate.js'
import { requireFeature } from './features.js'
import type { FirecrackerVersion } from './version.js'
import { checkFields, field, fromWire, refuseEmpty, toWire, type Fields } from './wire.js'

/**
 * The pages that back guest memory: ordinary ones, ordinary ones that the kernel may merge into
 * huge ones (from Firecracker 1.17.0), or 2 MiB pages of hugetlbfs.
 */
export type HugePages = (typeof hugePagesValues)[number]

export const hugePagesValues = ['None', 'Transparent', '2M'] as const

/** Refuses a kind of pages that this version does not have. */
export function requireHugePages(version: FirecrackerVersion, pages: HugePages | undefined): void {
  if (pages !== 'Transparent') return
  requireFeature(version, 'transparentHugePages', 'set hugePages to "None" or "2M"')
}

/** The most vCPUs Firecracker gives a microVM. */
export const maxVcpus = 32

/** `PUT /machine-config`; only before boot. */
export interface MachineConfig {
  /** Number of vCPUs, 1 to 32; with `smt`, 1 or an even number. */
  readonly vcpuCount: number
  /** Guest memory in MiB; even unless `hugePages` is `None`. */
  readonly memSizeMib: number
  /** Simultaneous multithreading, x86-64 only. @default false */
  readonly smt?: boolean | undefined
  /** Track written pages, so that diff snapshots can be made. @default false */
  readonly trackDirtyPages?: boolean | undefined
  /** The pages that back guest memory. @default 'None' */
  readonly hugePages?: HugePages | undefined
  /** A static CPU template. Deprecated by Firecracker. @default 'None' */
  readonly cpuTemplate?: string | undefined
}

/** `GET /machine-config`. A newer Firecracker may know more kinds of huge pages. */
export interface MachineConfigInfo extends Omit<MachineConfig, 'hugePages'> {
  /** The pages that back guest memory. */
  readonly hugePages?: HugePages | (string & {}) | undefined
}

const common = {
  vcpuCount: field('vcpu_count', integer({ min: 1, max: maxVcpus, unit: 'vCPUs' })),
  memSizeMib: field('mem_size_mib', integer({ min: 1, unit: 'MiB' })),
  smt: field('smt', optional(boolean)),
  trackDirtyPages: field('track_dirty_pages', optional(boolean)),
  cpuTemplate: field('cpu_template', optional(string)),
}

const fields: Fields<MachineConfig> = {
  ...common,
  hugePages: field('huge_pages', optional(oneOf(hugePagesValues))),
}

const infoFields: Fields<MachineConfigInfo> = {
  ...common,
  hugePages: field('huge_pages', optional(string)),
}

const patchFields: Fields<Partial<MachineConfig>> = {
  ...fields,
  vcpuCount: field(fields.vcpuCount.wire, optional(fields.vcpuCount.check)),
  memSizeMib: field(fields.memSizeMib.wire, optional(fields.memSizeMib.check)),
}

const check = checkFields(fields)
const checkPatch = checkFields(patchFields)

/** The body of `PUT /machine-config`. */
export function machineConfigBody(config: MachineConfig): Record<string, unknown> {
  return toWire(fields, check(config, options()))
}

/** The body of `PATCH /machine-config`. */
export function machineConfigPatchBody(patch: Partial<MachineConfig>): Record<string, unknown> {
  const body = toWire(patchFields, checkPatch(patch, options()))
  refuseEmpty(body, patchFields, 'the machine configuration')
  return body
}

export const readMachineConfig: (body: unknown) => MachineConfigInfo = fromWire(infoFields)
