import native, { type Host } from '#native'
import { UffdError } from '../../errors.js'

/** Says at once that no guest process can make a userfaultfd here. */
export function checkHost(host: Host = native.probeHost()): void {
  const { systemCall, userModeOnly, device } = host
  if ([systemCall, userModeOnly, device].includes('granted')) return
  throw new UffdError(
    'ERR_UFFD_PLATFORM',
    'This user may create no userfaultfd, not even for faults of user mode: uffd-rs-serve doctor ' +
      'says what would have to change',
  )
}
