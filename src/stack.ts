import { UffdError } from './errors.js'

/**
 * Waits for what is settled by an event. An error that comes with one was made where nobody had
 * called: its stack is taken anew, so that it names who waits.
 */
export async function namingCaller<T>(work: Promise<T>): Promise<T> {
  try {
    return await work
  } catch (error) {
    if (error instanceof UffdError) Error.captureStackTrace(error, namingCaller)
    throw error
  }
}
