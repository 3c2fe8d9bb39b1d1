import { type NativeServer } from '#native'

/** What is known of the service manager, such as systemd, that started this process. */
export interface SystemdState {
  /** Whether it wants to be told what becomes of the service (`Type=notify`). */
  readonly isTold: boolean
  /**
   * How many descriptors it keeps at most (`FileDescriptorStoreMax=`); `undefined` where it has not
   * said so, as before systemd 254.
   */
  readonly storeMax: number | undefined
  /**
   * How often it wants a sign of life, in milliseconds (`WatchdogSec=`). It gets one as long as all
   * fault loops of this process turn, whether or not its JavaScript does.
   */
  readonly watchdogMs: number | undefined
  /** Paths of sockets that it listens on for this process and that no server here uses. */
  readonly unusedSockets: readonly string[]
}

/** The variables that mean this process, and no program that it starts. */
const variables = [
  'NOTIFY_SOCKET',
  'LISTEN_PID',
  'LISTEN_PIDFDID',
  'LISTEN_FDS',
  'LISTEN_FDNAMES',
  'FDSTORE',
  'WATCHDOG_PID',
  'WATCHDOG_USEC',
]

/**
 * What a service manager has told this process by its environment. It is taken out of there, so that
 * no program that is started from here takes itself for the service.
 */
export function takeEnvironment(): Record<string, string> {
  const taken: Record<string, string> = {}
  for (const name of variables) {
    const value = process.env[name]
    if (value !== undefined) taken[name] = value
    delete process.env[name]
  }
  return taken
}

/** What a server knows of the service manager, if it has to do with one. */
export function systemdState(server: NativeServer): SystemdState | undefined {
  const known = server.serviceManager()
  if (known === null) return undefined
  const { isTold, storeLimit, watchdogMs, unusedSockets } = known
  return {
    isTold,
    storeMax: storeLimit ?? undefined,
    watchdogMs: watchdogMs ?? undefined,
    unusedSockets,
  }
}
