import { UffdError } from '../errors.js'
import { type Check, object, optional, options, record } from '../validate.js'
import { FirecrackerApi, type SeenRequest } from './firecracker-api.js'
import type { Misbehaviour } from './firecracker-api/misbehaviour.js'
import { minorOf, type JsonObject, type Route } from './firecracker-api/published.js'
import { argumentsOf, GuestProcess } from './guest-process.js'
import { checkMemory, type GuestMemory } from './snapshot.js'

/** What a stand-in plays. */
export interface StandInOptions extends GuestMemory {
  /**
   * The version it says it is, and whose API it has: 1.10 to 1.17.
   * @default '1.16.1'
   */
  readonly version?: string | undefined
  /** The balloon of the snapshot that is loaded, as `GET /balloon` has it. */
  readonly balloon?: Readonly<Record<string, unknown>> | undefined
  /** Requests that are answered wrongly, by method and path: `PUT /snapshot/load`. */
  readonly misbehave?: Readonly<Partial<Record<Route, Misbehaviour>>> | undefined
}

const version: Check<string> = (value, at) =>
  typeof value === 'string' && /^1\.1[0-7]\.\d/.test(value)
    ? value
    : at.expected('a version from 1.10.0 to 1.17', value)

const checkOptions = object<StandInOptions>({
  version: optional(version),
  balloon: optional(record),
  misbehave: optional(record),
  ...checkMemory,
})

/** How a version hands off: before 1.12 with one name of the page size, and then it hangs up. */
const handoffOf = (played: string): readonly string[] =>
  minorOf(played) < 12 ? ['--dialect', '1.7', '--close-socket'] : []

/**
 * A Firecracker for tests, without KVM: its API over a Unix socket as it is published, refusals
 * included, and behind it a guest process that hands off its memory when a snapshot is loaded. It runs
 * no guest: {@link guest} touches memory as it is told.
 */
export class FirecrackerStandIn implements AsyncDisposable {
  readonly #api: FirecrackerApi
  #guest: GuestProcess | undefined
  #exited: Promise<void> | undefined

  private constructor(api: FirecrackerApi) {
    this.#api = api
  }

  /** Starts one that has no microVM yet; resolves when its API socket accepts. */
  static async start(standInOptions: StandInOptions): Promise<FirecrackerStandIn> {
    const given = checkOptions(standInOptions, options())
    const { version: played = '1.16.1', balloon, misbehave, ...memory } = given
    const { pages, pageSize = 4096 } = memory
    const memSizeMib = Math.max(1, Math.ceil((pages * pageSize) / 2 ** 20))
    const machineConfig = {
      vcpu_count: 1,
      mem_size_mib: memSizeMib,
      huge_pages: pageSize === 4096 ? 'None' : '2M',
    }
    const api = await FirecrackerApi.start({
      version: played,
      snapshot: { machineConfig, balloon: balloon as JsonObject | undefined },
      ...(misbehave !== undefined && { misbehave }),
      onLoadSnapshot: async (body) => {
        await standIn.#load(body, memory, handoffOf(played))
      },
    })
    const standIn = new FirecrackerStandIn(api)
    return standIn
  }

  /** The path of its API socket. */
  get apiSocket(): string {
    return this.#api.socketPath
  }

  /** Every request so far, in order, refused or not. */
  get requests(): readonly SeenRequest[] {
    return this.#api.requests
  }

  /** What the API says of the microVM. */
  get state(): 'Not started' | 'Running' | 'Paused' {
    return this.#api.vm.state
  }

  /**
   * The process whose memory was handed off; its end is the end of the stand-in.
   *
   * @throws {UffdError} ERR_UFFD_TESTING before a snapshot was loaded.
   */
  get guest(): GuestProcess {
    if (this.#guest !== undefined) return this.#guest
    throw new UffdError('ERR_UFFD_TESTING', 'The stand-in has no guest yet: no snapshot was loaded')
  }

  /** Resolves when this request has arrived, whether or not it was answered. */
  async arrived(route: Route): Promise<void> {
    await this.#api.arrived(route)
  }

  /** Ends as a crash does: the guest is gone, connections break, and the socket's file stays. */
  async crash(): Promise<void> {
    await this.#guest?.kill()
    await this.#exited
    await this.#api.exit()
  }

  /** Ends it, and leaves no file behind. */
  async close(): Promise<void> {
    await this.#guest?.kill()
    await this.#exited
    await this.#api.close()
  }

  /** The same as {@link close}. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.close()
  }

  async #load(body: JsonObject, memory: GuestMemory, handoff: readonly string[]): Promise<void> {
    const backend = body['mem_backend'] as JsonObject | undefined
    if (backend?.['backend_type'] !== 'Uffd') return
    const socket = backend['backend_path'] as string
    const args = argumentsOf({ ...memory, socket })
    this.#guest = await GuestProcess.startAs([...args, ...handoff])
    this.#exited = this.#guest.exited.then(async () => await this.#api.exit())
  }
}
