import { stat } from 'node:fs/promises'
import { Trace, UffdError } from '../../index.js'
import { whyNotIn } from '../directory.js'

/**
 * Finds out whether a trace can be saved at a path. What is there has to be a trace: a slip of
 * the pen must not cost a snapshot.
 */
export async function checkSaveTo(path: string): Promise<void> {
  const why = await whyNot(path)
  if (why === undefined) return
  throw new UffdError('ERR_UFFD_TRACE_SAVE', `Cannot save a trace at ${path}: ${why}`)
}

async function whyNot(path: string): Promise<string | undefined> {
  const why = await whyNotIn(path)
  if (why !== undefined) return why
  const there = await stat(path).catch(() => undefined)
  if (there === undefined) return undefined
  if (!there.isFile()) return 'what is there is no regular file'
  if (there.size === 0 || (await startsLikeTrace(path))) return undefined
  return 'what is there is no trace; remove it, or choose another path'
}

/** Also if it cannot be read any more: then it may be replaced. */
async function startsLikeTrace(path: string): Promise<boolean> {
  try {
    await Trace.load(path)
    return true
  } catch (error) {
    return (error as UffdError).code !== 'ERR_UFFD_TRACE_NOT_A_TRACE'
  }
}
