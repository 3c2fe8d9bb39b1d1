import { type EventEmitter } from 'node:events'

/**
 * Calls the listeners of an event. One that throws, or whose promise is rejected, is reported as
 * a warning and hurts nobody: guests depend on this process.
 */
export function tell(emitter: EventEmitter, event: string, ...args: unknown[]): void {
  for (const listener of emitter.rawListeners(event)) {
    try {
      const result: unknown = Reflect.apply(listener, emitter, args)
      if (result instanceof Promise) result.catch((error: unknown) => report(event, error))
    } catch (error) {
      report(event, error)
    }
  }
}

function report(event: string, error: unknown): void {
  const { text, detail } = described(error)
  process.emitWarning(`A listener of the event "${event}" threw: ${text}`, {
    type: 'UffdWarning',
    ...(detail !== undefined && { detail }),
  })
}

/** What was thrown can be anything, even a value that throws when it is looked at. */
function described(error: unknown): { text: string; detail?: string | undefined } {
  try {
    return { text: String(error), detail: error instanceof Error ? error.stack : undefined }
  } catch {
    return { text: 'a value that cannot be shown' }
  }
}
