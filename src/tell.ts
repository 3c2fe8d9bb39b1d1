import { type EventEmitter } from 'node:events'

/**
 * Calls the listeners of an event. One that throws, or whose promise is rejected, is reported as
 * a warning and hurts nobody: guests depend on this process.
 */
export function tell(emitter: EventEmitter, event: string, ...args: unknown[]): void {
  const what = `A listener of the event "${event}"`
  for (const listener of emitter.rawListeners(event))
    attempt(what, () => Reflect.apply(listener, emitter, args))
}

/** The same for a function that was given as an option, if it was. */
export function callBack<T>(
  option: string,
  given: ((value: T) => void) | undefined,
  value: T,
): void {
  if (given !== undefined) attempt(`The option ${option}`, () => given(value))
}

function attempt(what: string, call: () => unknown): void {
  try {
    const result = call()
    if (result instanceof Promise) result.catch((error: unknown) => report(what, error))
  } catch (error) {
    report(what, error)
  }
}

function report(what: string, error: unknown): void {
  const { text, detail } = described(error)
  process.emitWarning(`${what} threw: ${text}`, {
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
