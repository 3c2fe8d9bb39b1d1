export { applyTemplate, templateBalloon, templateMachineConfig } from './apply-template.js'
export type { BalloonConfig, BalloonInfo } from './balloon.js'
export type { BalloonStatistics } from './balloon-statistics.js'
export { FirecrackerClient, type FirecrackerClientOptions } from './client.js'
export type { RequestOptions } from './deadline.js'
export { FirecrackerError, FirecrackerHttpError, FirecrackerUnsupportedError } from './errors.js'
export { firecrackerFeatures, hasFeature, type FirecrackerFeature } from './features.js'
export type { HintingStart, HintingStatus } from './hinting.js'
export type { InstanceInfo } from './instance.js'
export type { HugePages, MachineConfig, MachineConfigInfo } from './machine-config.js'
export { resolveFreePages, type FreePageChoice, type ResolvedFreePages } from './reporting.js'
export type { NetworkOverride, SnapshotCreate, SnapshotLoad, VsockOverride } from './snapshot.js'
export {
  parseTemplate,
  type ResolvedBalloon,
  type Template,
  type TemplateBalloon,
  type TemplateInput,
  type TemplateSnapshot,
} from './template.js'
export { readTemplate } from './template-file.js'
export { FirecrackerVersion } from './version.js'
