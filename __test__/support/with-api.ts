import type { ExecutionContext } from 'ava'
import { FirecrackerClient, type FirecrackerClientOptions } from '../../src/index.js'
import { FirecrackerApi, type FirecrackerApiOptions } from './firecracker-api.js'

/** A test server and a client of it, both closed at the end of the test. */
export async function withApi(
  t: ExecutionContext,
  options?: FirecrackerApiOptions,
  clientOptions?: Partial<FirecrackerClientOptions>,
): Promise<{ api: FirecrackerApi; client: FirecrackerClient }> {
  const api = await FirecrackerApi.start(options)
  const client = new FirecrackerClient({ socketPath: api.socketPath, ...clientOptions })
  t.teardown(async () => {
    client.close()
    await api.close()
  })
  return { api, client }
}
