import { applyTemplate, FirecrackerClient, type FreePageChoice, readTemplate } from '../../index.js'
import { exitStatus } from '../exit-status.js'

/** Configures a fresh Firecracker; resolves with the exit status. */
export async function configureByTemplate(
  socketPath: string,
  file: string,
  choice: FreePageChoice,
): Promise<number> {
  const template = await readTemplate(file, choice)
  const client = new FirecrackerClient({ socketPath })
  try {
    await applyTemplate(client, template)
  } finally {
    client.close()
  }
  const { memSizeMib, vcpuCount, freePageReporting } = template
  process.stdout.write(
    `Configured ${socketPath}: ${memSizeMib} MiB, ${vcpuCount} vCPU${vcpuCount === 1 ? '' : 's'}, ` +
      `free page reporting ${freePageReporting ? 'on' : 'off'}\n`,
  )
  return exitStatus.ok
}
