import type { ListenOptions } from '../../index.js'
import { type ServeValues, statsEvery } from './options.js'

/** The options of the package that those of the command stand for. */
export function listenOptions(values: ServeValues): ListenOptions {
  return {
    socket: values.socket,
    snapshot: values.snapshot,
    dirtyTracking: values['dirty-tracking'],
    faultAround: values['fault-around'],
    onUnservable: values['on-unservable'],
    faultDeadlineMs: values['fault-deadline'],
    handoffTimeoutMs: values['handoff-timeout'],
    killOnFailure: values['kill-on-failure'],
    shortWaits: values['short-waits'],
    trace: values.trace !== undefined,
    statsIntervalMs: statsEvery(values),
  }
}
