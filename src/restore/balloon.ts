import { type BalloonInfo } from '../firecracker/balloon.js'
import { type FirecrackerClient } from '../firecracker/client.js'
import { type RequestOptions } from '../firecracker/deadline.js'
import { FirecrackerHttpError } from '../firecracker/errors.js'

/** The microVM's balloon; Firecracker answers with a 400 where there is none. */
export async function balloonIfAny(
  client: FirecrackerClient,
  request: RequestOptions,
): Promise<BalloonInfo | undefined> {
  try {
    return await client.balloon(request)
  } catch (error) {
    if (error instanceof FirecrackerHttpError && error.status === 400) return undefined
    throw error
  }
}
