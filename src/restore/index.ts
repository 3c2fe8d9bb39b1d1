export { type RestoreOptions, type RestoreTimeouts } from './options.js'
export { RestoreError, type RestoreStep, type VmAfterRestore } from './restore-error.js'
export { restore } from './restore.js'
export { type RestoredVm } from './restored-vm.js'
export { type StepError } from './step-error.js'
export { pauseAndSnapshot, type SnapshotMade } from './pause-and-snapshot.js'
export {
  PauseAndSnapshotError,
  type SnapshotStep,
  type VmAfterSnapshot,
} from './pause-and-snapshot-error.js'
export {
  type PauseAndSnapshotOptions,
  type PauseAndSnapshotTimeouts,
  type SnapshotTarget,
} from './pause-and-snapshot-options.js'
