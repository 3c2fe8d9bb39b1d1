import { Attempt } from './attempt.js'
import { checkRestoreOptions, type RestoreOptions } from './options.js'
import { type RestoredVm } from './restored-vm.js'

/**
 * Restores a microVM from a snapshot into a fresh Firecracker, and serves its memory: listens,
 * has the snapshot loaded, takes the guest over, starts to prefetch, compares what was restored
 * with what is described, and resumes it.
 *
 * ```js
 * const vm = await restore({
 *   apiSocket: '/run/vm-7/firecracker.sock',
 *   snapshotState: '/snapshots/base/state',
 *   snapshot: '/snapshots/base/mem',
 * })
 * const { reason } = await vm.ended
 * ```
 *
 * @throws {RestoreError} if a step fails; then everything it had started was taken down, and the
 * error says which step it was and what is left of the microVM. {UffdValidationError} if an
 * option is wrong.
 */
export async function restore(options: RestoreOptions): Promise<RestoredVm> {
  return await new Attempt(checkRestoreOptions(options)).run()
}
