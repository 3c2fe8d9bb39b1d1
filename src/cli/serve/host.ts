import native, { type Host } from '#native'
import { UffdError } from '../../index.js'
import type { Output } from '../output/output.js'

/** Says at once what would make guests fail later. */
export function warnOfHost(output: Output, host: Host = native.probeHost()): void {
  const { systemCall, userModeOnly, device } = host
  const all = [systemCall, userModeOnly, device]
  if (all.every((access) => access === 'absent')) {
    throw new UffdError(
      'ERR_UFFD_PLATFORM',
      'This kernel has no userfaultfd, so no guest can hand one off: it needs CONFIG_USERFAULTFD ' +
        '(see uffd-rs-serve doctor)',
    )
  }
  if (systemCall === 'granted' || device === 'granted') return
  output.tell(
    'warn',
    { event: 'host', ...host },
    'This user may not create a userfaultfd for KVM. Whoever runs Firecracker has to: see ' +
      'uffd-rs-serve doctor',
  )
}
