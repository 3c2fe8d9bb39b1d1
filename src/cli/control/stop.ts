import { several } from '../../numbers.js'
import { exitStatus } from '../exit-status.js'
import { jsonOutput } from '../output/json.js'
import { checkProtocol, type Stopped, stoppedIn, type Stopping, stoppingIn } from './answers.js'
import { ask, failure } from './client.js'
import { howEnded } from './status.js'

/** What is asked for besides the end. */
export interface StopOptions {
  readonly leavesGuests: boolean
  readonly timeoutMs: number
  readonly asJson: boolean
}

/** Stops a server and waits for its end; resolves with the exit status. */
export async function stop(
  control: string,
  { leavesGuests, timeoutMs, asJson }: StopOptions,
): Promise<number> {
  let beginning: Stopping | undefined
  let end: Stopped | undefined
  const path = leavesGuests ? '/stop?hand-over' : '/stop'
  try {
    await ask({ control, method: 'POST', path, timeoutMs }, (line) => {
      if (beginning === undefined) {
        checkProtocol(line, control)
        beginning = stoppingIn(line, control)
        return 'more'
      }
      end = stoppedIn(line, control)
      return 'last'
    })
  } catch (error) {
    if (beginning === undefined || end !== undefined) throw error
    const why = `was told to stop process ${beginning.pid}, which has not ended in order`
    throw failure(control, `${why}: ${(error as Error).message}`, error)
  }
  if (beginning === undefined || end === undefined) {
    throw failure(control, 'hung up before it said what became of its guests')
  }
  tell(control, beginning, end, asJson)
  return exitStatus.ok
}

function tell(control: string, { pid }: Stopping, { ends, guests }: Stopped, asJson: boolean) {
  const became = howEnded(ends)
  const text =
    `Process ${pid} has ended; ` +
    (became.length === 0 ? 'it had no guests' : `its guests: ${became.join(', ')}`)
  if (asJson) {
    const output = jsonOutput('info')
    output.tell('info', { event: 'stopped', control, pid, ends, guests }, text)
    output.end()
    return
  }
  const still = guests.filter(({ reason }) => reason === 'stopped')
  const waiting = `Of ${several(still.length, 'guest')} who still runs waits at the next page it misses`
  process.stdout.write(`${text}\n${still.length === 0 ? '' : `${waiting}\n`}`)
}
