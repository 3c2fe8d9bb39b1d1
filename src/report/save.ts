import { open, rename, rm } from 'node:fs/promises'
import { UffdError } from '../errors.js'
import { systemReason } from '../system-error.js'
import { firstLine } from './html.js'

/**
 * Saves a report, all or nothing. What is there has to be a report: a slip of the pen must not
 * cost a snapshot.
 */
export async function saveReport(path: string, html: string): Promise<void> {
  const temporary = `${path}.${process.pid}.part`
  try {
    await checkReportAt(path)
    const file = await open(temporary, 'wx', 0o644)
    try {
      await file.writeFile(html)
    } finally {
      await file.close()
    }
    await rename(temporary, path)
  } catch (error) {
    await rm(temporary, { force: true })
    if (error instanceof UffdError) throw error
    throw new UffdError(
      'ERR_UFFD_REPORT',
      `Cannot save a report at ${path}: ${systemReason(error)}`,
      { cause: error },
    )
  }
}

/** Refuses a path at which there is something else than a report. */
export async function checkReportAt(path: string): Promise<void> {
  if (await isReportOrNothing(path)) return
  throw new UffdError(
    'ERR_UFFD_REPORT',
    `Cannot save a report at ${path}: what is there is no report; remove it, or choose another path`,
  )
}

async function isReportOrNothing(path: string): Promise<boolean> {
  const file = await open(path, 'r').catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return undefined
    throw error
  })
  if (file === undefined) return true
  try {
    if (!(await file.stat()).isFile()) return false
    const start = Buffer.alloc(firstLine.length)
    const { bytesRead } = await file.read(start, 0, start.length, 0)
    return bytesRead === 0 || start.toString('utf8') === firstLine
  } finally {
    await file.close()
  }
}
