export {
  errorCodes,
  UffdError,
  UffdPageError,
  UffdValidationError,
  type UffdErrorCode,
} from './errors.js'
export { type GuestEnd } from './guest/end.js'
export {
  type Abortable,
  type Guest,
  type GuestEvents,
  type PrefetchMode,
  type ReleaseOptions,
} from './guest/guest.js'
export {
  pageStates,
  type DirtyPages,
  type PageState,
  type PageStates,
  type RegionStates,
} from './guest/page-states.js'
export { type Pages } from './guest/pages.js'
export { type GuestPeer, type Tags, type TagsFor } from './guest/peer.js'
export { type PageRange } from './page-range.js'
export { type GuardianEvents, type GuardianOptions, type GuardianState } from './server/guardian.js'
export { type NotRecovered } from './server/left.js'
export { type HttpEndpoint } from './http/endpoint.js'
export { type HttpOptions } from './http/serve.js'
export { type ControlEndpoint } from './control/endpoint.js'
export { GuestReport, type ReportOptions } from './report/guest-report.js'
export { saveReport } from './report/save.js'
export { listen } from './server/listen.js'
export { type Owner } from './socket-access.js'
export { type ListenOptions } from './server/options.js'
export { type SystemdState } from './server/systemd.js'
export { type AcceptOptions, type Server, type ServerEvents } from './server/server.js'
export { type FilledWith, type TraceEntry } from './trace/entries.js'
export { Trace, type LoadTraceOptions, type PageSize, type RecordedOn } from './trace/trace.js'
export {
  type EndReason,
  type GuestOwner,
  type Latency,
  type Notice,
  type NoticeKind,
  type PageCounts,
  type PrefaultReport,
  type Region,
  type ReleaseProgress,
  type Stats,
  type TraceSnapshot,
  type TraceSummary,
  type Tracking,
} from '#native'
export * from './firecracker/index.js'
export * from './restore/index.js'
