import {
  type Check,
  type Checked,
  localSocket,
  milliseconds,
  object,
  optional,
  options as place,
} from '../validate.js'
import {
  balloonBody,
  balloonTargetBody,
  readBalloon,
  statsIntervalBody,
  type BalloonConfig,
  type BalloonInfo,
} from './balloon.js'
import { readBalloonStatistics, type BalloonStatistics } from './balloon-statistics.js'
import type { RequestOptions } from './deadline.js'
import { requireFeature } from './features.js'
import {
  hintingStartBody,
  readHintingStatus,
  type HintingStart,
  type HintingStatus,
} from './hinting.js'
import { readInstanceInfo, readVersion, type InstanceInfo } from './instance.js'
import {
  machineConfigBody,
  machineConfigPatchBody,
  readMachineConfig,
  requireHugePages,
  type MachineConfig,
  type MachineConfigInfo,
} from './machine-config.js'
import { untilReady } from './ready.js'
import { checkRequestOptions, Requests } from './requests.js'
import {
  snapshotCreateBody,
  snapshotLoadBody,
  type SnapshotCreate,
  type SnapshotLoad,
} from './snapshot.js'
import { FirecrackerVersion } from './version.js'

/** Where Firecracker is, and how long to wait for it. */
export interface FirecrackerClientOptions {
  /** The API's Unix socket: the path Firecracker got as `--api-sock`. */
  readonly socketPath: string | URL
  /** The deadline of a request in milliseconds. @default 10000 */
  readonly timeoutMs?: number | undefined
  /**
   * The deadline in milliseconds for creating and loading a snapshot, which
   * write and map whole memories.
   * @default 60000
   */
  readonly snapshotTimeoutMs?: number | undefined
}

const checkOptions = object<Checked<FirecrackerClientOptions>>({
  socketPath: localSocket,
  timeoutMs: optional(milliseconds),
  snapshotTimeoutMs: optional(milliseconds),
})

/**
 * The part of Firecracker's API that restoring and memory need. Names and units
 * are the published ones in camel case. Each request has a deadline and is sent
 * once: what failed may have been carried out, and only the caller can know.
 */
export class FirecrackerClient {
  /** The API socket. */
  readonly socketPath: string
  readonly #api: Requests
  readonly #timeoutMs: number
  readonly #snapshotTimeoutMs: number
  #version: FirecrackerVersion | undefined

  constructor(options: FirecrackerClientOptions) {
    const checked = checkOptions(options, place())
    this.socketPath = checked.socketPath
    this.#timeoutMs = checked.timeoutMs ?? 10_000
    this.#api = new Requests(checked.socketPath, this.#timeoutMs)
    this.#snapshotTimeoutMs = checked.snapshotTimeoutMs ?? 60_000
  }

  /**
   * Resolves with the version as soon as Firecracker answers: a process that was just started
   * makes its socket first. Until the deadline, a socket that is missing or refuses is no error.
   */
  async ready(options: RequestOptions = {}): Promise<FirecrackerVersion> {
    const { timeoutMs = this.#timeoutMs, signal } = checkRequestOptions(options, place())
    return await untilReady(
      (leftMs) => this.#askVersion({ timeoutMs: leftMs, signal }),
      timeoutMs,
      signal,
    )
  }

  /** Firecracker's version; asked for once, since a process does not change it. */
  async version(options?: RequestOptions): Promise<FirecrackerVersion> {
    return this.#version ?? (await this.#askVersion(options))
  }

  /** The microVM's id and state. */
  async instanceInfo(options?: RequestOptions): Promise<InstanceInfo> {
    return await this.#api.get('/', readInstanceInfo, options)
  }

  /** The machine configuration, of a restored microVM too. */
  async machineConfig(options?: RequestOptions): Promise<MachineConfigInfo> {
    return await this.#api.get('/machine-config', readMachineConfig, options)
  }

  /** Sets the whole machine configuration; what is left out gets its default. Before boot. */
  async putMachineConfig(config: MachineConfig, options?: RequestOptions): Promise<void> {
    const body = machineConfigBody(config)
    await this.#needHugePages(config, options)
    await this.#api.send('PUT', '/machine-config', body, options)
  }

  /** Changes some of the machine configuration. Before boot. */
  async patchMachineConfig(patch: Partial<MachineConfig>, options?: RequestOptions): Promise<void> {
    const body = machineConfigPatchBody(patch)
    await this.#needHugePages(patch, options)
    await this.#api.send('PATCH', '/machine-config', body, options)
  }

  /** The balloon's configuration; refused by Firecracker if there is no balloon. */
  balloon(options?: RequestOptions): Promise<BalloonInfo> {
    return this.#api.get('/balloon', readBalloon, options)
  }

  /**
   * Creates the balloon, or replaces its configuration. Before boot. Free page
   * reporting is on from Firecracker 1.14.0 unless it is set to false.
   */
  async putBalloon(config: BalloonConfig, options?: RequestOptions): Promise<void> {
    const body = balloonBody(await this.version(options), config)
    await this.#api.send('PUT', '/balloon', body, options)
  }

  /** Sets the size the balloon aims for, in MiB. */
  async setBalloonTarget(amountMib: number, options?: RequestOptions): Promise<void> {
    await this.#api.send('PATCH', '/balloon', balloonTargetBody(amountMib), options)
  }

  /** The latest statistics of the guest; refused unless turned on before boot. */
  balloonStatistics(options?: RequestOptions): Promise<BalloonStatistics> {
    return this.#api.get('/balloon/statistics', readBalloonStatistics, options)
  }

  /** Sets the seconds between two statistics. Cannot turn them on or off after boot. */
  async setBalloonStatisticsInterval(intervalS: number, options?: RequestOptions): Promise<void> {
    await this.#api.send('PATCH', '/balloon/statistics', statsIntervalBody(intervalS), options)
  }

  /** Starts a run of free page hinting; the balloon needs `freePageHinting`. */
  async startHinting(start: HintingStart = {}, options?: RequestOptions): Promise<void> {
    const body = hintingStartBody(start)
    await this.#needHinting(options)
    await this.#api.send('PATCH', '/balloon/hinting/start', body, options)
  }

  /** How far a run of free page hinting is. */
  async hintingStatus(options?: RequestOptions): Promise<HintingStatus> {
    await this.#needHinting(options)
    return this.#api.get('/balloon/hinting/status', readHintingStatus, options)
  }

  /** Stops a run of free page hinting. */
  async stopHinting(options?: RequestOptions): Promise<void> {
    await this.#needHinting(options)
    await this.#api.send('PATCH', '/balloon/hinting/stop', undefined, options)
  }

  /** Pauses the guest's vCPUs. */
  async pause(options?: RequestOptions): Promise<void> {
    await this.#api.send('PATCH', '/vm', { state: 'Paused' }, options)
  }

  /** Lets the guest's vCPUs run again. */
  async resume(options?: RequestOptions): Promise<void> {
    await this.#api.send('PATCH', '/vm', { state: 'Resumed' }, options)
  }

  /** Writes a snapshot of the paused microVM. */
  async createSnapshot(create: SnapshotCreate, options?: RequestOptions): Promise<void> {
    const body = snapshotCreateBody(create)
    await this.#api.send('PUT', '/snapshot/create', body, options, this.#snapshotTimeoutMs)
  }

  /**
   * Loads a snapshot whose memory comes from a page-fault handler. It does not
   * return before the handler has taken the guest; if it fails, Firecracker ends.
   */
  async loadSnapshot(load: SnapshotLoad, options?: RequestOptions): Promise<void> {
    const body = snapshotLoadBody(await this.version(options), load)
    await this.#api.send('PUT', '/snapshot/load', body, options, this.#snapshotTimeoutMs)
  }

  /** Ends what is still waiting, with an error. Firecracker itself goes on. */
  close(): void {
    this.#api.close()
  }

  /** The same as `close()`. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.close()
  }

  async #askVersion(options: RequestOptions | undefined): Promise<FirecrackerVersion> {
    const { version } = await this.#api.get('/version', readVersion, options)
    this.#version = FirecrackerVersion.parse(version)
    return this.#version
  }

  async #needHugePages(
    { hugePages }: Partial<MachineConfig>,
    options: RequestOptions | undefined,
  ): Promise<void> {
    // Any version has the others.
    if (hugePages !== 'Transparent') return
    requireHugePages(await this.version(options), hugePages)
  }

  async #needHinting(options: RequestOptions | undefined): Promise<void> {
    const wayOut = 'let the guest free pages into the balloon instead'
    requireFeature(await this.version(options), 'freePageHinting', wayOut)
  }
}

/** A client, and nothing that looks like one. */
export const checkClient: Check<FirecrackerClient> = (value, at) =>
  value instanceof FirecrackerClient ? value : at.expected('a FirecrackerClient', value)
