// Checked by tsc alone: what the types promise to a caller, and what they refuse.
import {
  FirecrackerClient,
  type UffdError,
  type BalloonConfig,
  type BalloonInfo,
  type BalloonStatistics,
  type FirecrackerFeature,
  type HintingStatus,
  type InstanceInfo,
  type MachineConfig,
  type MachineConfigInfo,
  type SnapshotLoad,
  type Template,
  type TemplateInput,
  type UffdErrorCode,
} from '../../src/index.js'
import { same, type Same } from '../support/types.js'

declare const client: FirecrackerClient

same<Same<Awaited<ReturnType<typeof client.balloon>>, BalloonInfo>>()
same<Same<Awaited<ReturnType<typeof client.machineConfig>>, MachineConfigInfo>>()
same<Same<Awaited<ReturnType<typeof client.instanceInfo>>, InstanceInfo>>()
same<Same<Awaited<ReturnType<typeof client.hintingStatus>>, HintingStatus>>()
same<Same<Awaited<ReturnType<typeof client.balloonStatistics>>, BalloonStatistics>>()
same<Same<Awaited<ReturnType<typeof client.pause>>, void>>()

same<Same<UffdError['code'], UffdErrorCode>>()
same<Same<BalloonConfig['freePageReporting'], boolean | undefined>>()
same<Same<Template['freePageReporting'], boolean>>()
same<Same<BalloonStatistics['targetPages'], number>>()
same<Same<BalloonStatistics['freeMemory'], number | undefined>>()

client satisfies AsyncDisposable

'vsockOverride' satisfies FirecrackerFeature
// @ts-expect-error: no such feature
'balloonDog' satisfies FirecrackerFeature
// @ts-expect-error: no such code
'ERR_UFFD_NONE' satisfies UffdErrorCode

;({ memSizeMib: 1, vcpuCount: 1, hugePages: undefined }) satisfies MachineConfig
// @ts-expect-error: memory is required
;({ vcpuCount: 1 }) satisfies MachineConfig
// @ts-expect-error: there are no such huge pages
;({ memSizeMib: 1, vcpuCount: 1, hugePages: '1G' }) satisfies MachineConfig
// @ts-expect-error: names are in camel case
;({ mem_size_mib: 1, vcpuCount: 1 }) satisfies MachineConfig

;({ snapshotPath: 's', backendPath: 'b' }) satisfies SnapshotLoad
// @ts-expect-error: the handler's socket is required
;({ snapshotPath: 's' }) satisfies SnapshotLoad

;({ firecracker: '1.14.1', memSizeMib: 1 }) satisfies TemplateInput
// @ts-expect-error: a choice is true, false or left out
;({ firecracker: '1.14.1', memSizeMib: 1, freePageReporting: 'on' }) satisfies TemplateInput

// @ts-expect-error: the socket is required
export const none = new FirecrackerClient({})
