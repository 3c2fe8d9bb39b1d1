import { stat } from 'node:fs/promises'
import { resolve } from 'node:path'
import { checkClient, type FirecrackerClient } from '../firecracker/client.js'
import { Guest } from '../guest/guest.js'
import { Server } from '../server/server.js'
import {
  abortSignal,
  argument,
  boolean,
  type Check,
  filePath,
  looseObject,
  milliseconds,
  object,
  oneOf,
  optional,
  options,
} from '../validate.js'

/** A microVM that runs or is paused: what `restore` returns, or its two parts. */
export interface SnapshotTarget {
  /** The client of its Firecracker. */
  readonly client: FirecrackerClient
  /** Its memory. */
  readonly guest: Guest
  /** What the guest came from; it need not be given. */
  readonly server?: Server | undefined
}

/** How long the parts of it may take. */
export interface PauseAndSnapshotTimeouts {
  /**
   * Each request but the snapshot, in milliseconds.
   * @default the client's: 10_000
   */
  readonly requestMs?: number | undefined
  /**
   * From the pause until the handler has settled, in milliseconds.
   * @default 60_000
   */
  readonly settleMs?: number | undefined
  /**
   * The writing of the snapshot, in milliseconds.
   * @default the client's: 60_000
   */
  readonly createMs?: number | undefined
}

/** What to write, and what becomes of the microVM. */
export interface PauseAndSnapshotOptions {
  /**
   * Where Firecracker writes the state of the microVM, as Firecracker sees it. A relative path
   * starts at the current directory of this process.
   */
  readonly snapshotState: string
  /**
   * Where Firecracker writes the guest's memory, likewise. Neither of the two is ever the file the
   * guest is served from: its unfaulted pages are still in there. Where Firecracker is in a jail, it
   * cannot be seen from here whether they are.
   */
  readonly snapshot: string
  /**
   * All memory, or what was written since the load. Without `trackDirtyPages` at the load, `Diff`
   * is refused before Firecracker 1.13.0, and has every page that is present from then on.
   * @default 'Full'
   */
  readonly type?: 'Full' | 'Diff' | undefined
  /**
   * Whether the microVM is resumed afterwards, also if the snapshot fails.
   * @default false
   */
  readonly resume?: boolean | undefined
  /** Deadlines; all have defaults. */
  readonly timeouts?: PauseAndSnapshotTimeouts | undefined
  /** Gives it up when it fires; what Firecracker writes then is no snapshot. */
  readonly signal?: AbortSignal | undefined
}

const checkGuest: Check<Guest> = (value, at) =>
  value instanceof Guest ? value : at.expected('a Guest', value)

const checkServer: Check<Server> = (value, at) =>
  value instanceof Server ? value : at.expected('a Server', value)

const checkTarget = looseObject<SnapshotTarget>({
  client: checkClient,
  guest: checkGuest,
  server: optional(checkServer),
})

const check = object<PauseAndSnapshotOptions>({
  snapshotState: filePath,
  snapshot: filePath,
  type: optional(oneOf(['Full', 'Diff'])),
  resume: optional(boolean),
  timeouts: optional(
    object<PauseAndSnapshotTimeouts>({
      requestMs: optional(milliseconds),
      settleMs: optional(milliseconds),
      createMs: optional(milliseconds),
    }),
  ),
  signal: optional(abortSignal),
})

export function checkSnapshotTarget(given: unknown): SnapshotTarget {
  return checkTarget(given, argument('vm'))
}

export function checkPauseAndSnapshotOptions(given: unknown): PauseAndSnapshotOptions {
  const checked = check(given, options())
  const snapshotState = resolve(checked.snapshotState)
  const snapshot = resolve(checked.snapshot)
  if (snapshot === snapshotState) {
    options().field('snapshot').expected('another file than snapshotState', snapshot)
  }
  return { ...checked, snapshotState, snapshot }
}

/**
 * Writing over the file a guest is served from would change the guest under its feet, and all others
 * that are served from it.
 */
export async function refuseServedFile(
  { guest }: SnapshotTarget,
  { snapshot, snapshotState }: PauseAndSnapshotOptions,
): Promise<void> {
  const served = await identity(guest.servedFrom)
  for (const [name, file] of Object.entries({ snapshot, snapshotState })) {
    const isServed = served !== undefined && served === (await identity(file))
    const what = 'another file than the one the guest is served from'
    if (isServed) options().field(name).expected(what, file)
  }
}

async function identity(file: string): Promise<string | undefined> {
  try {
    const { dev, ino } = await stat(file, { bigint: true })
    return `${dev}:${ino}`
  } catch {
    // Not there, or in a jail: then it is no file that could be compared.
    return undefined
  }
}
