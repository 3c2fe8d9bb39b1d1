// What the tests of an orchestrator need: guests and Firecrackers that need no KVM.
export {
  GuestProcess,
  type ExpectedPages,
  type GuestProcessOptions,
  type Touched,
} from './guest-process.js'
export { FirecrackerStandIn, type StandInOptions } from './stand-in.js'
export { writeSnapshot, type GuestMemory, type SnapshotOptions } from './snapshot.js'
export { type SeenRequest } from './firecracker-api.js'
export { type Misbehaviour } from './firecracker-api/misbehaviour.js'
export { type JsonObject, type Route } from './firecracker-api/published.js'
