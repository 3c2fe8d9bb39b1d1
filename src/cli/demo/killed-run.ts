import native, { type Access } from '#native'
import { type PageCounts } from '../../index.js'
import type { Checks } from './checks.js'
import type { GuestProcess } from '../../testing/guest-process.js'
import { givenBack, startUp, stamp, written } from './runs.js'
import { pages, type Stage } from './stage.js'

/** What the guest was about to read when its server was killed: nothing of it was touched. */
const unread = { page: 12_000, count: pages - 12_000 }

/** What came of the run whose server is killed. */
export interface KilledRun {
  /** Whether this process may take over a guest; without it there is nothing to show. */
  readonly access: Access
  readonly takenOver?: TakenOver
}

/** A guest that another process has left. */
export interface TakenOver {
  /** The server that was killed. */
  readonly pid: number
  /** From its end until the guest was served again. */
  readonly millis: number
  /** The pages then, by state. */
  readonly states: PageCounts
  /** The guest was released in the end: whether all of it was right without any server. */
  readonly isWholeAlone: boolean
}

/** A guest whose server is killed while it works, and which this process takes over. */
export async function killedRun(stage: Stage, checks: Checks): Promise<KilledRun> {
  return await stage.withServerProcess(async (server, process) => {
    const access = native.probeDescriptor(process.pid, 0)
    if (access !== 'granted') return { access }
    await startUp(process)
    await process.ask('write', { ...written, stamp })
    await process.ask('madvise', givenBack)
    const reading = checks.check(process, unread, 'source')
    // It is awaited below, unless something else fails before that.
    reading.catch(() => {})
    await server.kill()
    const before = performance.now()
    return await stage.withThoseLeft(async (guest) => {
      const millis = performance.now() - before
      await reading
      const { counts: states } = await guest.pageStates()
      await checkAll(process, checks)
      await guest.release()
      const isWholeAlone = await checkAll(process, checks)
      return { access, takenOver: { pid: server.pid, millis, states, isWholeAlone } }
    })
  })
}

async function checkAll(process: GuestProcess, checks: Checks): Promise<boolean> {
  const kept = { ...written, count: givenBack.page - written.page }
  const rest = givenBack.page + givenBack.count
  const wrong =
    (await checks.check(process, { page: 0, count: written.page }, 'source')) +
    (await checks.check(process, kept, { stamp })) +
    (await checks.check(process, givenBack, 'zeros')) +
    (await checks.check(process, { page: rest, count: pages - rest }, 'source'))
  return wrong === 0
}
