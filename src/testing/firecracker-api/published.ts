/**
 * What each version's published description allows, written down on its own and
 * not taken from src/firecracker: the tests compare the two.
 */

/** The described versions, one of each minor; the last is described, but not released. */
export const releases = [
  '1.10.1',
  '1.11.0',
  '1.12.1',
  '1.13.1',
  '1.14.1',
  '1.15.0',
  '1.16.1',
  '1.17.0-dev',
] as const

export type Release = (typeof releases)[number]

/** The second number of a 1.x version. */
export const minorOf = (version: string): number => Number(version.split('.')[1])

export type Json = null | boolean | number | string | Json[] | { [name: string]: Json }
/** A JSON object. */
export type JsonObject = { [name: string]: Json }

export interface FieldRule {
  readonly type: 'string' | 'boolean' | 'integer' | Rules | readonly [Rules]
  readonly required?: boolean
  readonly values?: readonly string[]
  /** Values that are not in all versions, and the first minor version with each. */
  readonly laterValues?: { readonly [value: string]: number }
  readonly min?: number
  readonly max?: number
  /** The first minor version with this field. */
  readonly since?: number
}

export type Rules = { readonly [name: string]: FieldRule }

export interface Endpoint {
  /** The first minor version with this endpoint. */
  readonly since?: number
  readonly body?: Rules
  readonly bodyOptional?: boolean
  /** The status of a success, by minor version. */
  readonly success: (minor: number) => 200 | 204
  /** Refused once the microVM has started. */
  readonly beforeBoot?: boolean
  /** Refused until the microVM has started. */
  readonly afterBoot?: boolean
}

const u32 = 2 ** 32 - 1
const ok = () => 200 as const
const noContent = () => 204 as const
const required = true

const machineConfig: Rules = {
  vcpu_count: { type: 'integer', required, min: 1, max: 32 },
  mem_size_mib: { type: 'integer', required },
  smt: { type: 'boolean' },
  cpu_template: {
    type: 'string',
    values: ['C3', 'T2', 'T2S', 'T2CL', 'T2A', 'V1N1', 'None'],
  },
  track_dirty_pages: { type: 'boolean' },
  huge_pages: { type: 'string', values: ['None', '2M'], laterValues: { Transparent: 17 } },
}

const partialMachineConfig: Rules = Object.fromEntries(
  Object.entries(machineConfig).map(([name, rule]) => [name, { ...rule, required: false }]),
)

const balloon: Rules = {
  amount_mib: { type: 'integer', required, max: u32 },
  deflate_on_oom: { type: 'boolean', required },
  stats_polling_interval_s: { type: 'integer', max: 65_535 },
  free_page_hinting: { type: 'boolean', since: 14 },
  free_page_reporting: { type: 'boolean', since: 14 },
}

const snapshotLoad: Rules = {
  snapshot_path: { type: 'string', required },
  mem_file_path: { type: 'string' },
  mem_backend: {
    type: {
      backend_type: { type: 'string', required, values: ['File', 'Uffd'] },
      backend_path: { type: 'string', required },
    },
  },
  enable_diff_snapshots: { type: 'boolean' },
  track_dirty_pages: { type: 'boolean', since: 13 },
  resume_vm: { type: 'boolean' },
  network_overrides: {
    type: [
      {
        iface_id: { type: 'string', required },
        host_dev_name: { type: 'string', required },
      },
    ],
    since: 12,
  },
  vsock_override: { type: { uds_path: { type: 'string', required } }, since: 16 },
  clock_realtime: { type: 'boolean', since: 16 },
  huge_pages: { type: 'string', values: ['Snapshot', 'None', 'Transparent', '2M'], since: 17 },
}

/** Hinting was described with 200 at first and with 204 from 1.16. */
const hintingSuccess = (minor: number) => (minor < 16 ? 200 : 204)

export const endpoints = {
  'GET /': { success: ok },
  'GET /version': { success: ok },
  'GET /machine-config': { success: ok },
  'PUT /machine-config': { body: machineConfig, success: noContent, beforeBoot: true },
  'PATCH /machine-config': { body: partialMachineConfig, success: noContent, beforeBoot: true },
  'GET /balloon': { success: ok },
  'PUT /balloon': { body: balloon, success: noContent, beforeBoot: true },
  'PATCH /balloon': {
    body: { amount_mib: { type: 'integer', required, max: u32 } },
    success: noContent,
  },
  'GET /balloon/statistics': { success: ok },
  'PATCH /balloon/statistics': {
    body: { stats_polling_interval_s: { type: 'integer', required, max: 65_535 } },
    success: noContent,
  },
  'PATCH /balloon/hinting/start': {
    since: 14,
    body: { acknowledge_on_stop: { type: 'boolean' } },
    bodyOptional: true,
    success: hintingSuccess,
    afterBoot: true,
  },
  'GET /balloon/hinting/status': { since: 14, success: ok, afterBoot: true },
  'PATCH /balloon/hinting/stop': { since: 14, success: hintingSuccess, afterBoot: true },
  'PATCH /vm': {
    body: { state: { type: 'string', required, values: ['Paused', 'Resumed'] } },
    success: noContent,
    afterBoot: true,
  },
  'PUT /snapshot/create': {
    body: {
      snapshot_path: { type: 'string', required },
      mem_file_path: { type: 'string', required },
      snapshot_type: { type: 'string', values: ['Full', 'Diff'] },
    },
    success: noContent,
    afterBoot: true,
  },
  'PUT /snapshot/load': { body: snapshotLoad, success: noContent, beforeBoot: true },
} as const satisfies Record<string, Endpoint>

/** A request of the API, by its method and path. */
export type Route = keyof typeof endpoints
