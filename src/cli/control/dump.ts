import { exitStatus } from '../exit-status.js'
import { checkProtocol } from './answers.js'
import { ask } from './client.js'

/** Prints everything that a server knows of its guests, or one; resolves with the exit status. */
export async function dump(
  control: string,
  guest: string | undefined,
  timeoutMs: number,
): Promise<number> {
  const query = guest === undefined ? '' : `?${new URLSearchParams({ guest })}`
  await ask({ control, path: `/dump${query}`, timeoutMs }, (all) => {
    checkProtocol(all, control)
    process.stdout.write(`${JSON.stringify(all, undefined, 2)}\n`)
    return 'last'
  })
  return exitStatus.ok
}
