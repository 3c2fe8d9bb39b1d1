import { type NativeListenOptions } from '#native'
import { type PrefetchMode } from '../guest/guest.js'
import { checkTagsFor, type TagsFor } from '../guest/peer.js'
import { checkMode, checkOwner, type Owner } from '../socket-access.js'
import { checkTraceOrFile, type Trace } from '../trace/trace.js'
import {
  abortSignal,
  boolean,
  type Check,
  type Checked,
  integer,
  localFile,
  localSocket,
  milliseconds,
  object,
  oneOf,
  optional,
  options,
  type Shape,
} from '../validate.js'
import {
  guardianOption,
  nativeGuardian,
  requireStateDir,
  type CheckedGuardian,
  type GuardianOptions,
} from './guardian.js'

/** How a server is to behave. Everything but the two paths has a default that is safe. */
export interface ListenOptions {
  /**
   * Where Firecracker is told to connect: the `backend_path` of its `mem_backend`. A stale
   * socket file is taken over, one that is listened on is not. At most 107 bytes.
   */
  readonly socket: string | URL
  /** The guest's memory file, as Firecracker wrote it; may be sparse. Must not change. */
  readonly snapshot: string | URL
  /**
   * Whom the socket is given to before anybody can connect, such as the user that a jailer runs
   * Firecracker as. Takes root or CAP_CHOWN.
   * @default the user of this process
   */
  readonly socketOwner?: Owner | undefined
  /**
   * The permissions of the socket before anybody can connect: who may write to it may connect.
   * @default what the umask leaves
   */
  readonly socketMode?: number | undefined
  /**
   * A trace of an earlier run, or its file. Its pages are installed into each guest from the
   * handoff on, while faults are served; `guest.prefetched` tells what came of it. The trace of
   * another snapshot is refused before anything is started.
   * @default none
   */
  readonly prefetch?: Trace | string | URL | undefined
  /**
   * `install`: the guest has the pages. `fetch`: they are only read into the host's memory, and
   * faults on them wait for no device.
   * @default 'install'
   */
  readonly prefetchMode?: PrefetchMode | undefined
  /**
   * Whether dirty pages are tracked. `auto`: if the VMM registered its memory for write
   * protection. `on`: always; a guest for which the kernel will not is refused. `off`: never.
   * @default 'auto'
   */
  readonly dirtyTracking?: 'auto' | 'on' | 'off' | undefined
  /**
   * How many pages may be filled when one is missed: as many as the access pattern asks for
   * (`true`), exactly one (`false`), or as the pattern asks, at most so many (a number). Of 2 MiB pages
   * it is one, and up to two more where somebody walks through memory, as soon as no fault waits and
   * where the host's pool holds all that the guest may still need.
   * @default true
   */
  readonly faultAround?: boolean | number | undefined
  /**
   * What becomes of a page that cannot be had before `faultDeadlineMs`. `poison`: accesses raise
   * SIGBUS, which ends a stock Firecracker; before Linux 6.6 the same as `fail`. `kill`: the guest
   * is killed and its session fails. `fail`: the session fails; the guest's threads wait for you to
   * end it.
   * @default 'poison'
   */
  readonly onUnservable?: 'poison' | 'kill' | 'fail' | undefined
  /**
   * How long a fault may wait for a page that cannot be had, in milliseconds.
   * @default 30_000
   */
  readonly faultDeadlineMs?: number | undefined
  /**
   * How long a guest may take from its connection to the end of its handoff, in milliseconds.
   * @default 10_000
   */
  readonly handoffTimeoutMs?: number | undefined
  /**
   * How many guests the server has at once; more are refused (`ERR_UFFD_MAX_GUESTS`).
   * @default as many as half of the limit of open files has room for, at most 4096
   */
  readonly maxGuests?: number | undefined
  /**
   * How many of them one process may hand off. Firecracker hands off one.
   * @default 4
   */
  readonly maxGuestsPerProcess?: number | undefined
  /**
   * A directory in which guests are kept, so that they outlive this process: each has a ledger
   * there, and a server that is started later with the same directory and snapshot takes over
   * those that were left. It should be on a tmpfs (such as one in `/run`), belongs to this user
   * alone (it is made with mode 0700), and serves one server at a time. Taking a guest over needs
   * the right to trace its process: root, CAP_SYS_PTRACE, or the same user.
   *
   * What a crash can lose: latencies, the last counters, and of the trace what was being served in
   * that very moment. Never a page, a written byte, or a page that counts as dirty.
   * @default none: a guest lives only as long as this process serves it
   */
  readonly stateDir?: string | URL | undefined
  /**
   * Whether to wait for another server that has the state directory, instead of failing with
   * `ERR_UFFD_STATE_DIR_IN_USE`.
   * @default false
   */
  readonly stateDirWait?: boolean | undefined
  /**
   * Called while this server waits for another one that has the state directory: it is ready to take
   * over so many guests, and the other one can be told to hand over. Called again whenever a guest has
   * come or gone by then.
   * @default none
   */
  readonly onWaiting?: ((guests: number) => void) | undefined
  /**
   * Whether a guardian serves the guests of `stateDir` while no server does: a small native process
   * of its own session, which is started here, outlives this process, and gives guests back to the
   * next server of the directory. It is started again if it dies, and ends by itself when no guest
   * is left and no server is there. One that is there already is used.
   * @default false: guests wait while no server runs
   */
  readonly guardian?: boolean | GuardianOptions | undefined
  /**
   * Whether this process is a service of systemd, or of a manager like it: the manager is told when
   * the server is ready (`READY=1`), how many guests it has, and that its fault loops are alive
   * (`WATCHDOG=1`); it keeps the userfaultfds of the guests of `stateDir`, from which the next process
   * has them; and a socket that it listens on at the path of `socket` is used. What it has told by the
   * environment (`NOTIFY_SOCKET`, `LISTEN_…`, `WATCHDOG_…`, `FDSTORE`) is taken out of `process.env`.
   * Where no manager has told anything, it changes nothing. The whole process is one service: of
   * several servers that are started at once, the last one makes it ready.
   * @default false
   */
  readonly systemd?: boolean | undefined
  /**
   * Whether a guest is killed when its session fails: its threads would wait for ever.
   * @default false
   */
  readonly killOnFailure?: boolean | undefined
  /**
   * Whether first touches are recorded, 16 bytes each, for `guest.trace()` and its event.
   * @default true
   */
  readonly trace?: boolean | undefined
  /**
   * Whether a fault loop may try to read for some microseconds before it sleeps: shorter
   * latencies for a little CPU time while a guest is faulting.
   * @default true
   */
  readonly shortWaits?: boolean | undefined
  /**
   * Whether 2 MiB of memory that are all installed become a transparent huge page (MADV_COLLAPSE,
   * `process_madvise(2)`), which spares the guest misses of the TLB: one range after the other, those
   * that the guest touched most first, while no fault comes. Takes CAP_SYS_NICE and the right to
   * trace the guest's process; otherwise a notice says so. With dirty tracking only what was written
   * is collapsed. A guest of 2 MiB pages has no need of it.
   * @default false
   */
  readonly collapse?: boolean | undefined
  /**
   * Gives each guest tags, from what is known of the process that handed it off: `({ root }) => ({ vm:
   * root?.split('/').at(-2) ?? '' })` for the jailer's id. They are in `guest.tags`, and wherever a
   * server is asked for its guests. If it throws, the guest has none, and that is a warning.
   * @default none
   */
  readonly tags?: TagsFor | undefined
  /**
   * How often a guest emits `stats`, in milliseconds, while somebody listens.
   * @default 1000
   */
  readonly statsIntervalMs?: number | undefined
  /** Stops the server and its guests when it fires, as `stop()` does. */
  readonly signal?: AbortSignal | undefined
}

/** The defaults that the native part does not know. */
const defaultStatsIntervalMs = 1000

const pages: Check<boolean | number> = (value, at) =>
  typeof value === 'boolean'
    ? value
    : typeof value === 'number'
      ? integer({ min: 1, max: 2 ** 32 - 1, unit: 'pages' })(value, at)
      : at.expected('true, false or a number of pages', value)

const checkListener: Check<(guests: number) => void> = (value, at) =>
  typeof value === 'function'
    ? (value as (guests: number) => void)
    : at.expected('a function', value)

/** How each option is checked. */
export const listenShape: Shape<Checked<ListenOptions>> = {
  socket: localSocket,
  snapshot: localFile,
  socketOwner: optional(checkOwner),
  socketMode: optional(checkMode),
  prefetch: optional(checkTraceOrFile),
  prefetchMode: optional(oneOf(['install', 'fetch'])),
  dirtyTracking: optional(oneOf(['auto', 'on', 'off'])),
  faultAround: optional(pages),
  onUnservable: optional(oneOf(['poison', 'kill', 'fail'])),
  faultDeadlineMs: optional(milliseconds),
  handoffTimeoutMs: optional(milliseconds),
  maxGuests: optional(integer({ min: 1, max: 2 ** 32 - 1, unit: 'guests' })),
  maxGuestsPerProcess: optional(integer({ min: 1, max: 2 ** 32 - 1, unit: 'guests' })),
  stateDir: optional(localFile),
  stateDirWait: optional(boolean),
  onWaiting: optional(checkListener),
  guardian: optional(guardianOption),
  systemd: optional(boolean),
  killOnFailure: optional(boolean),
  trace: optional(boolean),
  shortWaits: optional(boolean),
  collapse: optional(boolean),
  tags: optional(checkTagsFor),
  statsIntervalMs: optional(milliseconds),
  signal: optional(abortSignal),
}

const checkOptions = object<Checked<ListenOptions>>(listenShape)

/** Checked options: those of the native part, and those of this side. */
export interface CheckedOptions {
  readonly native: NativeListenOptions
  readonly prefetch: Trace | string | undefined
  readonly prefetchMode: PrefetchMode
  readonly statsIntervalMs: number
  readonly tags: TagsFor | undefined
  readonly onWaiting: ((guests: number) => void) | undefined
  readonly signal: AbortSignal | undefined
  /** This process is a service. */
  readonly systemd: boolean
}

export function checkListenOptions(given: unknown): CheckedOptions {
  const {
    prefetch,
    prefetchMode = 'install',
    statsIntervalMs = defaultStatsIntervalMs,
    tags,
    onWaiting,
    signal,
    guardian,
    systemd = false,
    ...others
  } = checkOptions(given, options())
  requireStateDir({ guardian, stateDir: others.stateDir }, options())
  const launched = nativeGuardian(guardian as CheckedGuardian | undefined)
  const native = { ...others, ...(launched !== undefined && { guardian: launched }) }
  return {
    native: native as NativeListenOptions,
    prefetch,
    prefetchMode,
    statsIntervalMs,
    tags,
    onWaiting,
    signal,
    systemd,
  }
}
