import { exitStatus } from '../exit-status.js'
import { jsonOutput } from '../output/json.js'
import { hasColours } from '../output/terminal.js'
import { type Facts, gatherFacts } from './facts.js'
import type { Finding } from './finding.js'
import { canServe, findings } from './findings.js'
import { report } from './report.js'

/** Looks at this host and reports; resolves with the exit status. */
export async function doctor(json: boolean): Promise<number> {
  const facts = await gatherFacts()
  const all = findings(facts)
  const serves = canServe(all)
  if (json) {
    tellLines(facts, all, serves)
  } else {
    const text = report(all, serves, hasColours(process.stdout))
    process.stdout.write(`Linux ${facts.kernel}, user ${facts.uid}\n${text}`)
  }
  return serves ? exitStatus.ok : exitStatus.failed
}

const levels = { good: 'info', limited: 'warn', bad: 'error' } as const

/** A line for each finding, and one for what they come to. */
function tellLines({ kernel, uid }: Facts, all: readonly Finding[], serves: boolean): void {
  const output = jsonOutput('info')
  for (const { id, verdict, title, found, lost, change } of all) {
    const facts = { event: 'finding', code: id, status: verdict, found, lost, change }
    output.tell(levels[verdict], facts, `${title}: ${found}`)
  }
  const text = serves ? 'Guests can be served here' : 'Guests cannot be served here'
  const facts = { event: 'doctor', canServe: serves, kernel, uid }
  output.tell(serves ? 'info' : 'error', facts, text)
  output.end()
}
