import {
  arrayOf,
  boolean,
  object,
  oneOf,
  optional,
  options,
  filePath,
  socketFile,
  type Shape,
  string,
} from '../validate.js'
import { hasFeature, requireFeature } from './features.js'
import { hugePagesValues, type HugePages } from './machine-config.js'
import type { FirecrackerVersion } from './version.js'
import { checkFields, field, toWire, type Fields } from './wire.js'

/** `PUT /snapshot/create`; the microVM has to be paused. Paths are Firecracker's. */
export interface SnapshotCreate {
  /** Where the state of the microVM is written. */
  readonly snapshotPath: string
  /** Where the guest's memory is written. */
  readonly memFilePath: string
  /**
   * All memory, or what was written since the load or the last snapshot. Without
   * `trackDirtyPages`, `Diff` is refused before Firecracker 1.13.0, and has every
   * page that is present from then on.
   * @default 'Full'
   */
  readonly snapshotType?: 'Full' | 'Diff' | undefined
}

const createFields: Fields<SnapshotCreate> = {
  memFilePath: field('mem_file_path', filePath),
  snapshotPath: field('snapshot_path', filePath),
  snapshotType: field('snapshot_type', optional(oneOf(['Full', 'Diff']))),
}

const checkCreate = checkFields(createFields)

/** The body of `PUT /snapshot/create`. */
export function snapshotCreateBody(create: SnapshotCreate): Record<string, unknown> {
  return toWire(createFields, checkCreate(create, options()))
}

/** Another TAP device for a network interface of the snapshot. */
export interface NetworkOverride {
  /** The interface's id in the snapshot. */
  readonly ifaceId: string
  /** The TAP device on this host. */
  readonly hostDevName: string
}

/** Another Unix socket for the vsock device of the snapshot. */
export interface VsockOverride {
  /** The path of the socket. */
  readonly udsPath: string
}

/**
 * `PUT /snapshot/load` with the Uffd backend; only in a fresh Firecracker. The
 * handler has to be listening. Paths are as Firecracker sees them: inside its
 * jail, if it has one.
 */
export interface SnapshotLoad {
  /** The file with the state of the microVM. */
  readonly snapshotPath: string
  /** The socket of the page-fault handler. */
  readonly backendPath: string
  /** Resume the guest as soon as it is loaded. @default false */
  readonly resumeVm?: boolean | undefined
  /** Track written pages, so that diff snapshots can be made. @default false */
  readonly trackDirtyPages?: boolean | undefined
  /** Other TAP devices than in the snapshot. From Firecracker 1.12.0. @default none */
  readonly networkOverrides?: readonly NetworkOverride[] | undefined
  /** Another vsock socket than in the snapshot. From Firecracker 1.16.0. @default none */
  readonly vsockOverride?: VsockOverride | undefined
  /**
   * The pages that back guest memory: as in the snapshot, or others than there. From
   * Firecracker 1.17.0, unless as in the snapshot.
   * @default 'Snapshot'
   */
  readonly hugePages?: 'Snapshot' | HugePages | undefined
  /**
   * Advance the guest's clock by the time since the snapshot was made. x86-64
   * only, from Firecracker 1.16.0.
   * @default false
   */
  readonly clockRealtime?: boolean | undefined
}

const networkFields: Fields<NetworkOverride> = {
  ifaceId: field('iface_id', string),
  hostDevName: field('host_dev_name', string),
}

const vsockFields: Fields<VsockOverride> = { udsPath: field('uds_path', filePath) }

/** How each part of a load is checked. */
export const loadShape: Shape<SnapshotLoad> = {
  snapshotPath: filePath,
  backendPath: socketFile,
  resumeVm: optional(boolean),
  trackDirtyPages: optional(boolean),
  networkOverrides: optional(arrayOf(checkFields(networkFields))),
  vsockOverride: optional(checkFields(vsockFields)),
  hugePages: optional(oneOf(['Snapshot', ...hugePagesValues])),
  clockRealtime: optional(boolean),
}

const checkLoad = object(loadShape)

/** The body of `PUT /snapshot/load` for this version. */
export function snapshotLoadBody(
  version: FirecrackerVersion,
  load: SnapshotLoad,
): Record<string, unknown> {
  const {
    snapshotPath,
    backendPath,
    resumeVm,
    trackDirtyPages,
    networkOverrides = [],
    vsockOverride,
    hugePages = 'Snapshot',
    clockRealtime = false,
  } = checkLoad(load, options())
  if (networkOverrides.length > 0) requireFeature(version, 'networkOverrides')
  if (vsockOverride !== undefined) requireFeature(version, 'vsockOverride')
  if (clockRealtime) requireFeature(version, 'clockRealtime')
  if (hugePages !== 'Snapshot') {
    requireFeature(version, 'hugePagesOnLoad', 'leave hugePages out: they are as in the snapshot')
  }
  return {
    snapshot_path: snapshotPath,
    mem_backend: { backend_type: 'Uffd', backend_path: backendPath },
    ...(resumeVm !== undefined && { resume_vm: resumeVm }),
    ...(trackDirtyPages !== undefined && { [dirtyPagesName(version)]: trackDirtyPages }),
    ...(networkOverrides.length > 0 && {
      network_overrides: networkOverrides.map((one) => toWire(networkFields, one)),
    }),
    ...(vsockOverride !== undefined && { vsock_override: toWire(vsockFields, vsockOverride) }),
    ...(clockRealtime && { clock_realtime: true }),
    ...(hugePages !== 'Snapshot' && { huge_pages: hugePages }),
  }
}

function dirtyPagesName(version: FirecrackerVersion): string {
  return hasFeature(version, 'trackDirtyPages') ? 'track_dirty_pages' : 'enable_diff_snapshots'
}
