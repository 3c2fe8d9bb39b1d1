import { Fault } from './body.js'
import type { JsonObject, Route } from './published.js'

/** What the test plays behind the API. Firecracker answers when the promise resolves. */
export interface Hooks {
  /** The handoff: connect to the backend and send regions and descriptor. Rejecting is a fault. */
  readonly onLoadSnapshot?: ((body: JsonObject) => Promise<void>) | undefined
  /** A snapshot is to be written. */
  readonly onCreateSnapshot?: ((body: JsonObject) => Promise<void>) | undefined
  /** The balloon was created or its target set. */
  readonly onBalloon?: ((balloon: JsonObject) => Promise<void>) | undefined
  /** The guest is paused or resumed, by a snapshot that resumes it too. */
  readonly onState?: ((state: 'Running' | 'Paused') => Promise<void>) | undefined
  /** A run of hinting starts or stops. */
  readonly onHinting?: ((command: 'start' | 'stop') => Promise<void>) | undefined
}

/** The devices inside the snapshot that will be loaded. */
export interface SnapshotContents {
  readonly machineConfig?: JsonObject | undefined
  readonly balloon?: JsonObject | undefined
}

/** Firecracker's state and the order its requests have to keep. */
export class MicroVm {
  readonly #version: string
  readonly #hooks: Hooks
  readonly #snapshot: SnapshotContents
  #configured = false
  #hostCommand = 0
  state: 'Not started' | 'Running' | 'Paused' = 'Not started'
  machineConfig: JsonObject = { vcpu_count: 1, mem_size_mib: 128, ...machineDefaults }
  balloon: JsonObject | undefined

  constructor(version: string, hooks: Hooks, snapshot: SnapshotContents) {
    this.#version = version
    this.#hooks = hooks
    this.#snapshot = snapshot
  }

  /** Carries out a request whose body is known to be right. */
  async handle(route: Route, body: JsonObject): Promise<JsonObject | undefined> {
    switch (route) {
      case 'GET /':
        return {
          app_name: 'Firecracker',
          id: 'test-instance',
          state: this.state,
          vmm_version: this.#version,
        }
      case 'GET /version':
        return { firecracker_version: this.#version }
      case 'GET /machine-config':
        return this.machineConfig
      case 'PUT /machine-config':
        return this.#configure({ ...machineDefaults, ...body })
      case 'PATCH /machine-config':
        if (Object.keys(body).length === 0) throw new Fault('There is nothing in this PATCH.')
        return this.#configure({ ...this.machineConfig, ...body })
      case 'GET /balloon':
        return this.#device
      case 'PUT /balloon':
        return this.#putBalloon(body)
      case 'PATCH /balloon':
        return this.#patchBalloon(body)
      case 'GET /balloon/statistics':
        return this.#statistics()
      case 'PATCH /balloon/statistics':
        return this.#patchStatistics(body)
      case 'PATCH /balloon/hinting/start':
        return this.#hint('start')
      case 'GET /balloon/hinting/status':
        this.#needHinting()
        return { host_cmd: this.#hostCommand, guest_cmd: this.#hostCommand }
      case 'PATCH /balloon/hinting/stop':
        return this.#hint('stop')
      case 'PATCH /vm':
        return this.#enter(body['state'] === 'Paused' ? 'Paused' : 'Running')
      case 'PUT /snapshot/create':
        if (this.state !== 'Paused') throw new Fault('A snapshot needs the microVM to be paused.')
        await this.#hooks.onCreateSnapshot?.(body)
        return undefined
      case 'PUT /snapshot/load':
        return this.#load(body)
    }
  }

  get #device(): JsonObject {
    if (this.balloon === undefined) throw new Fault('No balloon device is configured.')
    return this.balloon
  }

  #configure(config: JsonObject): undefined {
    if (config['huge_pages'] !== 'None' && Number(config['mem_size_mib']) % 2 !== 0) {
      throw new Fault('The memory size (MiB) must be a multiple of 2 for huge pages.')
    }
    this.#configured = true
    this.machineConfig = config
  }

  async #putBalloon(body: JsonObject): Promise<undefined> {
    this.#refuseTooLarge(body)
    this.#configured = true
    this.balloon = {
      stats_polling_interval_s: 0,
      ...(hasHinting(this.#version) && { free_page_hinting: false, free_page_reporting: false }),
      ...body,
    }
    await this.#hooks.onBalloon?.(this.balloon)
  }

  async #patchBalloon(body: JsonObject): Promise<undefined> {
    this.balloon = { ...this.#device, ...body }
    this.#refuseTooLarge(body)
    await this.#hooks.onBalloon?.(this.balloon)
  }

  #refuseTooLarge({ amount_mib: amount }: JsonObject): void {
    if (Number(amount) > Number(this.machineConfig['mem_size_mib'])) {
      throw new Fault('The balloon cannot be larger than the memory.')
    }
  }

  #statistics(): JsonObject {
    const { amount_mib: amount, stats_polling_interval_s: interval } = this.#device
    if (interval === 0) throw new Fault('The statistics of the balloon are not enabled.')
    const mib = Number(amount)
    return {
      target_pages: mib * 256,
      actual_pages: mib * 256,
      target_mib: mib,
      actual_mib: mib,
      free_memory: 64 * 1024 * 1024,
      total_memory: 128 * 1024 * 1024,
      ...(hasHinting(this.#version) && { oom_kill: 0, alloc_stall: 3 }),
    }
  }

  #patchStatistics(body: JsonObject): undefined {
    const device = this.#device
    const turns =
      (device['stats_polling_interval_s'] === 0) !== (body['stats_polling_interval_s'] === 0)
    if (this.state !== 'Not started' && turns) {
      throw new Fault('Statistics cannot be turned on or off after boot.')
    }
    this.balloon = { ...device, ...body }
  }

  #needHinting(): void {
    if (this.#device['free_page_hinting'] !== true) {
      throw new Fault('Free page hinting is not enabled for this balloon.')
    }
  }

  async #hint(command: 'start' | 'stop'): Promise<undefined> {
    this.#needHinting()
    this.#hostCommand = command === 'start' ? Math.max(2, this.#hostCommand + 1) : 1
    await this.#hooks.onHinting?.(command)
  }

  /** Asking for the state the guest is in already changes nothing and is no error. */
  async #enter(state: 'Running' | 'Paused'): Promise<undefined> {
    if (state === this.state) return
    await this.#hooks.onState?.(state)
    this.state = state
  }

  async #load(body: JsonObject): Promise<undefined> {
    if (this.#configured) {
      throw new Fault('A snapshot can only be loaded before anything else is configured.')
    }
    if ((body['mem_backend'] === undefined) === (body['mem_file_path'] === undefined)) {
      throw new Fault('Exactly one of `mem_backend` and `mem_file_path` has to be given.')
    }
    await this.#hooks.onLoadSnapshot?.(body)
    this.machineConfig = {
      ...(this.#snapshot.machineConfig ?? this.machineConfig),
      ...pagesOfLoad(body),
    }
    this.balloon = this.#snapshot.balloon
    this.state = 'Paused'
    if (body['resume_vm'] === true) await this.#enter('Running')
  }
}

/** A load may ask for other pages than the snapshot has. */
function pagesOfLoad({ huge_pages: pages }: JsonObject): JsonObject {
  return pages === undefined || pages === 'Snapshot' ? {} : { huge_pages: pages }
}

const machineDefaults = {
  smt: false,
  track_dirty_pages: false,
  cpu_template: 'None',
  huge_pages: 'None',
} as const

const hasHinting = (version: string) => Number(version.split('.')[1]) >= 14
