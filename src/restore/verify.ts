import { UffdError } from '../errors.js'
import { type BalloonInfo } from '../firecracker/balloon.js'
import { type FirecrackerClient } from '../firecracker/client.js'
import { type RequestOptions } from '../firecracker/deadline.js'
import { type MachineConfigInfo } from '../firecracker/machine-config.js'
import { type SnapshotLoad } from '../firecracker/snapshot.js'
import { balloonIfAny } from './balloon.js'
import { type Wanted } from './wanted.js'

/** What Firecracker says of the microVM it has restored. */
export interface Found {
  readonly machineConfig: MachineConfigInfo
  /** Absent: the microVM has no balloon device. */
  readonly balloon: BalloonInfo | undefined
}

/** Asks what was restored, and refuses anything else than what is wanted. */
export async function verify(
  client: FirecrackerClient,
  wanted: Wanted,
  request: RequestOptions,
): Promise<Found> {
  const machineConfig = await client.machineConfig(request)
  const balloon = await balloonIfAny(client, request)
  const differences = [
    ...machineDifferences(wanted, machineConfig),
    ...balloonDifferences(wanted, balloon),
  ]
  if (differences.length === 0) return { machineConfig, balloon }
  throw new UffdError(
    'ERR_UFFD_RESTORE_VERIFY',
    `the snapshot is of another microVM than described: ${differences.join('; ')}. Describe it ` +
      'as it is, or make a new snapshot',
  )
}

function* machineDifferences(
  { template, load }: Wanted,
  found: MachineConfigInfo,
): Iterable<string> {
  const wanted: Partial<MachineConfigInfo> = { ...template, ...otherPages(load) }
  for (const name of ['vcpuCount', 'memSizeMib', 'hugePages'] as const) {
    // What nobody said is right, and versions that do not tell are not doubted.
    if (wanted[name] === undefined || found[name] === undefined) continue
    if (found[name] === wanted[name]) continue
    yield `${name} should be ${wanted[name]} and is ${found[name]}`
  }
}

/** Pages that the load was to change take the place of the template's. */
function otherPages({ hugePages }: SnapshotLoad): Partial<MachineConfigInfo> {
  return hugePages === undefined || hugePages === 'Snapshot' ? {} : { hugePages }
}

function* balloonDifferences(
  { freePages }: Wanted,
  balloon: BalloonInfo | undefined,
): Iterable<string> {
  for (const name of ['freePageReporting', 'freePageHinting'] as const) {
    const found = balloon?.[name] ?? false
    if (freePages[name] === undefined || found === freePages[name]) continue
    const where = balloon === undefined ? ', because it has no balloon' : ''
    yield `${name} should be ${freePages[name]} and is ${found}${where}`
  }
}
