import { mkdtempSync, renameSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { basename, join } from 'node:path'
import { exitStatus } from '../exit-status.js'
import { onSignals } from '../serve/signals.js'
import { Checks } from './checks.js'
import { checkHost } from './host.js'
import { killedRun } from './killed-run.js'
import { Report } from './report.js'
import { firstRun, secondRun } from './runs.js'
import { Stage } from './stage.js'

/** Shows what the package does on a guest of its own; resolves with the exit status. */
export async function demo(): Promise<number> {
  checkHost()
  const directory = mkdtempSync(join(tmpdir(), 'uffd-rs-demo-'))
  const stateDir = inMemory() ?? join(directory, 'state')
  // Also when a second signal ends the process at once.
  const remove = () => {
    for (const made of [directory, stateDir]) rmSync(made, { recursive: true, force: true })
  }
  process.on('exit', remove)
  const controller = new AbortController()
  const forget = onSignals(() => controller.abort())
  try {
    return await show(directory, stateDir, controller.signal)
  } catch (error) {
    if (!controller.signal.aborted) throw error
    process.stderr.write('Ended before it was done\n')
    return exitStatus.failed
  } finally {
    remove()
    process.off('exit', remove)
    forget()
  }
}

/** A directory where a Linux has a tmpfs for everybody, if this one does. */
function inMemory(): string | undefined {
  try {
    return mkdtempSync('/dev/shm/uffd-rs-demo-')
  } catch {
    return undefined
  }
}

async function show(directory: string, stateDir: string, signal: AbortSignal): Promise<number> {
  const report = new Report(process.stdout)
  const checks = new Checks()
  const stage = new Stage(directory, stateDir, signal)
  await report.snapshot(stage.snapshot)
  const trace = join(directory, 'first-run.trace')
  const page = join(directory, 'demo.html')
  const first = await firstRun(stage, checks, { trace, report: page })
  report.firstRun(first)
  const second = await secondRun(stage, checks, trace)
  report.secondRun(first, second)
  report.killedRun(await killedRun(stage, checks))
  report.verdict(checks)
  report.saved(keep(page))
  return checks.wrong === 0 ? exitStatus.ok : exitStatus.failed
}

/** Takes a file out of the directory of the demo, which is gone when it ends. */
function keep(file: string): string {
  const kept = join(mkdtempSync(join(tmpdir(), 'uffd-rs-report-')), basename(file))
  renameSync(file, kept)
  return kept
}
