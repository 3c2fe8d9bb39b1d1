import type { ListenOptions } from '../../index.js'
import { type ServeValues, type ServingValues, statsEvery } from './options.js'

/** The options of the package that those of the command stand for. */
export function listenOptions(values: ServeValues): ListenOptions {
  return {
    socket: values.socket,
    snapshot: values.snapshot,
    ...servingOptionsOf(values),
  }
}

/** The same for those that all commands which serve have. */
export function servingOptionsOf(
  values: ServingValues,
): Omit<ListenOptions, 'socket' | 'snapshot' | 'prefetch' | 'signal'> {
  return {
    socketOwner: values['socket-owner'],
    socketMode: values['socket-mode'],
    dirtyTracking: values['dirty-tracking'],
    faultAround: values['fault-around'],
    onUnservable: values['on-unservable'],
    faultDeadlineMs: values['fault-deadline'],
    handoffTimeoutMs: values['handoff-timeout'],
    stateDir: values['state-dir'],
    stateDirWait: values['state-dir-wait'],
    guardian: values.guardian
      ? { cgroup: values['guardian-cgroup'], log: values['guardian-log'] }
      : undefined,
    // Where no service manager has told this process anything, it changes nothing.
    systemd: values.systemd ?? true,
    killOnFailure: values['kill-on-failure'],
    shortWaits: values['short-waits'],
    collapse: values.collapse,
    trace: values.trace !== undefined || values.report !== undefined,
    statsIntervalMs: statsEvery(values),
  }
}
