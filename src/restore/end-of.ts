import { UffdError } from '../errors.js'
import { type GuestEnd } from '../guest/end.js'

/** The end of a guest as the reason why something else failed. */
export function endOf({ reason, error }: GuestEnd): UffdError {
  if (error !== undefined) return error
  const how = reason === 'guest-exited' ? 'the process of Firecracker exited' : 'it was stopped'
  return new UffdError('ERR_UFFD_GUEST_ENDED', `the guest is served no longer: ${how}`)
}
