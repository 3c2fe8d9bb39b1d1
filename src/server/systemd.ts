import { type NativeServer, type NativeServiceEnvironment } from '#native'

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

const variables = {
  notifySocket: 'NOTIFY_SOCKET',
  listenPid: 'LISTEN_PID',
  listenFds: 'LISTEN_FDS',
  listenFdNames: 'LISTEN_FDNAMES',
  fdStore: 'FDSTORE',
  watchdogPid: 'WATCHDOG_PID',
  watchdogUsec: 'WATCHDOG_USEC',
} as const satisfies Record<keyof NativeServiceEnvironment, string>

/**
 * What a service manager has told this process by its environment. It is taken out of there, so that
 * no program that is started from here takes itself for the service.
 */
export function takeEnvironment(): NativeServiceEnvironment {
  const taken: Record<string, string> = {}
  for (const [name, variable] of Object.entries(variables)) {
    const value = process.env[variable]
    if (value !== undefined) taken[name] = value
    delete process.env[variable]
  }
  // It goes with LISTEN_PID.
  delete process.env['LISTEN_PIDFDID']
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
