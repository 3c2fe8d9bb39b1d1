import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { rm } from 'node:fs/promises'
import { FirecrackerClient } from 'uffd-rs'
import type { StartVm } from './clones.js'

/** Starts Firecracker processes and loads the snapshot into them. */
export function firecracker(snapshotState: string, directory: string): StartVm {
  return async (clone, uffdSocket) => {
    const apiSocket = `${directory}/clone-${clone}.api`
    await rm(apiSocket, { force: true })
    const process = spawn('firecracker', ['--api-sock', apiSocket], {
      stdio: ['ignore', 'ignore', 'inherit'],
    })
    const exited = once(process, 'exit')
    const kill = async () => {
      process.kill('SIGKILL')
      await exited
      await rm(apiSocket, { force: true })
    }
    try {
      const client = new FirecrackerClient({ socketPath: apiSocket })
      await client.ready()
      await client.loadSnapshot({ snapshotPath: snapshotState, backendPath: uffdSocket })
      return { pid: process.pid!, resume: () => client.resume(), kill }
    } catch (error) {
      await kill()
      throw error
    }
  }
}
