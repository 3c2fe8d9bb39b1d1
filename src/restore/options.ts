import { resolve } from 'node:path'
import { checkClient, FirecrackerClient } from '../firecracker/client.js'
import { type FreePageChoice } from '../firecracker/reporting.js'
import { loadShape, type SnapshotLoad } from '../firecracker/snapshot.js'
import { checkTemplate, type Template } from '../firecracker/template.js'
import { requireStateDir } from '../server/guardian.js'
import { listenShape, type ListenOptions } from '../server/options.js'
import {
  boolean,
  type Check,
  type Checked,
  filePath,
  localFile,
  localSocket,
  milliseconds,
  object,
  optional,
  options,
  socketFile,
} from '../validate.js'

/** How long the parts of a restore may take. */
export interface RestoreTimeouts {
  /**
   * Each request but the load, in milliseconds.
   * @default the client's: 10_000
   */
  readonly requestMs?: number | undefined
  /**
   * The load of the snapshot, in milliseconds.
   * @default the client's: 60_000
   */
  readonly loadMs?: number | undefined
  /**
   * From the start of the load until the guest memory is handed off, in milliseconds.
   * @default 30_000
   */
  readonly handoffMs?: number | undefined
}

/**
 * How to restore. Either `apiSocket` or `client` is needed, and the two files of the snapshot
 * unless the template names them. What is not described here is as for `listen`.
 *
 * With `stateDir` the guest outlives this process: a server that listens there later takes it
 * over. The directory is this guest's alone for as long as it is served; one in which others were
 * left is refused (`ERR_UFFD_STATE_DIR_OCCUPIED`).
 */
export interface RestoreOptions
  extends
    Omit<ListenOptions, 'socket' | 'snapshot' | 'killOnFailure' | 'signal'>,
    Pick<
      SnapshotLoad,
      'trackDirtyPages' | 'networkOverrides' | 'vsockOverride' | 'hugePages' | 'clockRealtime'
    >,
    FreePageChoice {
  /** The API socket of a Firecracker that was told nothing yet. */
  readonly apiSocket?: string | URL | undefined
  /** A client of that Firecracker, instead of `apiSocket`. It stays yours to close. */
  readonly client?: FirecrackerClient | undefined
  /**
   * The file with the state of the microVM, as Firecracker sees it: inside its jail, if it has
   * one. A relative path starts at the current directory of this process.
   * @default the template's
   */
  readonly snapshotState?: string | undefined
  /**
   * The guest's memory file, as this process sees it; may be sparse. Must not change.
   * @default the template's
   */
  readonly snapshot?: string | URL | undefined
  /**
   * Where the handler listens until the guest is there; at most 107 bytes.
   * @default the path of the API socket, and `.uffd`
   */
  readonly socket?: string | URL | undefined
  /**
   * The same socket as Firecracker sees it, if it is in a jail; at most 107 bytes.
   * @default `socket`
   */
  readonly backendPath?: string | undefined
  /**
   * The template the snapshot was made from, or its file. Fills in what is left out here, and
   * the restored microVM has to agree with it.
   * @default none
   */
  readonly template?: Template | string | URL | undefined
  /**
   * Whether the snapshot's balloon reports free pages, which was decided before its boot. A
   * microVM that differs is refused, as is `true` before Firecracker 1.14.0.
   * @default the template's; without one, either is right
   */
  readonly freePageReporting?: boolean | undefined
  /**
   * The same for free page hinting.
   * @default the template's; without one, either is right
   */
  readonly freePageHinting?: boolean | undefined
  /**
   * Whether the guest runs afterwards. `true`: once everything was checked. `'at-load'`: a few
   * requests sooner, and it is checked while it runs. `false`: it stays paused.
   * @default true
   */
  readonly resume?: boolean | 'at-load' | undefined
  /**
   * How long the guest is kept paused for its prefetch at the most, in milliseconds: it is resumed
   * once all pages of the trace are there, or that long after the handoff. Both cores of a small host
   * copy then, and a guest that does little but touch memory is not ahead of them; one that computes
   * loses the time. Not with `resume: 'at-load'`.
   * @default none: it runs as soon as it can, beside the prefetch
   */
  readonly prefetchFirstMs?: number | undefined
  /**
   * Track written pages, so that Firecracker can make diff snapshots.
   * @default the template's, else false
   */
  readonly trackDirtyPages?: boolean | undefined
  /**
   * Whether the VM's process is killed when its memory cannot be served: because the restore
   * failed after the handoff, or its session failed later. It would wait for ever.
   * @default false
   */
  readonly killOnFailure?: boolean | undefined
  /**
   * Whether a guest on 2 MiB pages is refused if the pool of this host cannot hold all of its memory
   * beside what other guests of this process may still take: before Firecracker is told anything
   * where `hugePages` or the template says that its pages are of 2 MiB; otherwise when it has come,
   * before it runs. One that is let in all the same has threads that wait while the pool is used up.
   * @default true
   */
  readonly requireHugePages?: boolean | undefined
  /** Deadlines; all have defaults. */
  readonly timeouts?: RestoreTimeouts | undefined
  /** Gives the restore up when it fires. Means nothing any more once `restore` has resolved. */
  readonly signal?: AbortSignal | undefined
}

const template: Check<Template | string> = (value, at) =>
  typeof value === 'string' || value instanceof URL
    ? localFile(value, at)
    : checkTemplate(value, at)

const resume: Check<boolean | 'at-load'> = (value, at) =>
  value === 'at-load' || typeof value === 'boolean'
    ? value
    : at.expected('true, false or "at-load"', value)

const check = object<Checked<RestoreOptions>>({
  ...listenShape,
  apiSocket: optional(localSocket),
  client: optional(checkClient),
  snapshotState: optional(filePath),
  snapshot: optional(localFile),
  socket: optional(localSocket),
  backendPath: optional(socketFile),
  template: optional(template),
  freePageReporting: optional(boolean),
  freePageHinting: optional(boolean),
  resume: optional(resume),
  prefetchFirstMs: optional(milliseconds),
  trackDirtyPages: loadShape.trackDirtyPages,
  networkOverrides: loadShape.networkOverrides,
  vsockOverride: loadShape.vsockOverride,
  hugePages: loadShape.hugePages,
  clockRealtime: loadShape.clockRealtime,
  requireHugePages: optional(boolean),
  timeouts: optional(
    object<RestoreTimeouts>({
      requestMs: optional(milliseconds),
      loadMs: optional(milliseconds),
      handoffMs: optional(milliseconds),
    }),
  ),
})

/** Checked options, those of the server apart. */
export interface CheckedRestore {
  readonly options: Checked<RestoreOptions>
  readonly client: FirecrackerClient
  /** Whether the client was made here. */
  readonly ownsClient: boolean
  readonly socket: string
  readonly backendPath: string
}

export function checkRestoreOptions(given: unknown): CheckedRestore {
  const checked = check(given, options())
  requireStateDir(checked, options())
  const { apiSocket, client: ready } = checked
  if ((apiSocket === undefined) === (ready === undefined)) {
    const message = 'Give either apiSocket or client: where Firecracker is, or a client of it'
    options()
      .field('apiSocket')
      .fail(apiSocket === undefined ? message : `${message}, not both`, apiSocket)
  }
  const { prefetchFirstMs, resume: resumes } = checked
  if (resumes === 'at-load' && prefetchFirstMs !== undefined) {
    const left = 'left out with resume: "at-load", since the guest runs before'
    options().field('prefetchFirstMs').expected(left, prefetchFirstMs)
  }
  if (checked.template === undefined) {
    filePath(checked.snapshotState, options().field('snapshotState'))
    localFile(checked.snapshot, options().field('snapshot'))
  }
  const made =
    apiSocket === undefined ? undefined : new FirecrackerClient({ socketPath: apiSocket })
  const used = (ready ?? made)!
  const socket = checked.socket ?? `${used.socketPath}.uffd`
  socketFile(socket, options().field('socket'))
  const backendPath = checked.backendPath ?? resolve(socket)
  socketFile(backendPath, options().field('backendPath'))
  return { options: checked, client: used, ownsClient: made !== undefined, socket, backendPath }
}
