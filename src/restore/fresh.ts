import { UffdError } from '../errors.js'
import { type FirecrackerClient } from '../firecracker/client.js'
import { type RequestOptions } from '../firecracker/deadline.js'

/**
 * Refuses a Firecracker that has a microVM already: it would refuse the load itself, but in words
 * that sound as if this microVM had to be ended.
 */
export async function requireFresh(
  client: FirecrackerClient,
  request: RequestOptions,
): Promise<void> {
  const { state, id } = await client.instanceInfo(request)
  if (state === 'Not started') return
  throw new UffdError(
    'ERR_UFFD_FIRECRACKER_NOT_FRESH',
    `it has the microVM ${JSON.stringify(id)} already, whose state is ${JSON.stringify(state)}; ` +
      'restore into a new process of Firecracker',
  )
}
