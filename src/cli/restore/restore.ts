import {
  readTemplate,
  restore,
  RestoreError,
  type RestoreOptions,
  type RestoredVm,
} from '../../index.js'
import { requireCompanion } from '../arguments/companion.js'
import { UsageError } from '../arguments/usage-error.js'
import { exitStatus } from '../exit-status.js'
import type { Output } from '../output/output.js'
import { openControl } from '../serve/control.js'
import { endingOf } from '../serve/ending.js'
import { tellOfSystemd } from '../serve/systemd.js'
import { tellOfGuardian } from '../serve/guardian.js'
import { servingOptionsOf } from '../serve/listen-options.js'
import { tellPrefetch } from '../serve/prefetch.js'
import { serving } from '../serve/serving.js'
import type { RestoreValues } from './options.js'

/** Restores a microVM and serves it to its end; resolves with the exit status. */
export async function restoreAndServe(values: RestoreValues): Promise<number> {
  requireCompanion(
    values,
    'prefetch-first',
    'prefetch',
    'has the guest wait for the pages of a trace',
  )
  const options = await restoreOptionsOf(values)
  let isRestored = false
  const status = await serving(values, options.snapshot, async (serve) => {
    const { output, service, prefetch, ending, stop } = serve
    const vm = await restoreOrTell({ ...options, prefetch, signal: ending }, output)
    if (vm === undefined) return
    isRestored = true
    const end = endingOf(vm.server, values, ending, output)
    try {
      tellOfSystemd(vm.server, output)
      tellOfGuardian(vm.server, output)
      await openControl(vm.server, values, stop, output)
      tellRestored(vm, output)
      const { prefetched } = vm
      const seen = service.see(
        vm.guest,
        prefetched && (async (_guest, number) => await tellPrefetch(prefetched, number, output)),
      )
      const onSignal = () => void end()
      if (ending.aborted) onSignal()
      ending.addEventListener('abort', onSignal, { once: true })
      await seen
    } finally {
      // Whatever failed: an open server would keep the process alive.
      await end()
      await vm.stop()
    }
  })
  return isRestored ? status : exitStatus.failed
}

async function restoreOptionsOf(values: RestoreValues) {
  const template = values.template === undefined ? undefined : await readTemplate(values.template)
  const vsock = values['vsock-override']
  return {
    ...servingOptionsOf(values),
    apiSocket: values['api-socket'],
    snapshotState: needed('snapshot-state', values, template?.snapshot?.statePath),
    snapshot: needed('snapshot', values, template?.snapshot?.memoryPath),
    template,
    freePageReporting: values['free-page-reporting'],
    freePageHinting: values['free-page-hinting'],
    socket: values.socket,
    backendPath: values['backend-path'],
    resume: values.resume,
    prefetchFirstMs: values['prefetch-first'],
    trackDirtyPages: values['track-dirty-pages'],
    networkOverrides: values['network-overrides'],
    vsockOverride: vsock === undefined ? undefined : { udsPath: vsock },
    hugePages: values['huge-pages'],
    requireHugePages: values['require-huge-pages'],
    clockRealtime: values['clock-realtime'],
    timeouts: { loadMs: values['load-timeout'] },
  } satisfies RestoreOptions
}

function needed(
  name: 'snapshot' | 'snapshot-state',
  values: RestoreValues,
  itsTemplates: string | undefined,
): string {
  const path = values[name] ?? itsTemplates
  if (path !== undefined) return path
  const why = values.template === undefined ? '' : ', and the template names no snapshot'
  throw new UsageError(`--${name} FILE is missing${why}`)
}

async function restoreOrTell(
  options: RestoreOptions,
  output: Output,
): Promise<RestoredVm | undefined> {
  try {
    return await restore(options)
  } catch (error) {
    if (!(error instanceof RestoreError)) throw error
    const { code, step, vm, message } = error
    output.tell('error', { event: 'restore', code, step, vm }, message)
    return undefined
  }
}

function tellRestored(vm: RestoredVm, output: Output): void {
  const { version, machineConfig, resumed, freePageReporting, freePageHinting, client } = vm
  const { socketPath } = client
  const reporting = freePageReporting ? ', which gives free pages back' : ''
  output.tell(
    'info',
    {
      event: 'restored',
      apiSocket: socketPath,
      version: version.toString(),
      memSizeMib: machineConfig.memSizeMib,
      vcpuCount: machineConfig.vcpuCount,
      resumed,
      freePageReporting,
      freePageHinting,
    },
    `Restored a microVM into Firecracker ${version} at ${socketPath}${reporting}; ` +
      (resumed ? 'it runs' : 'it is paused'),
  )
}
