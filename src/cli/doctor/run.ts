import { exitStatus } from '../exit-status.js'
import { hasColours } from '../output/terminal.js'
import { gatherFacts } from './facts.js'
import { canServe, findings } from './findings.js'
import { report } from './report.js'

/** Looks at this host and reports; resolves with the exit status. */
export async function doctor(json: boolean): Promise<number> {
  const facts = await gatherFacts()
  const all = findings(facts)
  const serves = canServe(all)
  const text = json
    ? `${JSON.stringify({ canServe: serves, kernel: facts.kernel, findings: all }, undefined, 2)}\n`
    : `Linux ${facts.kernel}, user ${facts.uid}\n${report(all, serves, hasColours(process.stdout))}`
  process.stdout.write(text)
  return serves ? exitStatus.ok : exitStatus.failed
}
