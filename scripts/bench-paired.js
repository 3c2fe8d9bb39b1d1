// Two builds of the benchmarks against each other, on one machine, in turns:
//
//   node scripts/bench-paired.js BEFORE AFTER [--rounds N] [options of the benchmarks]
//
// BEFORE and AFTER are two programs `uffd-bench`. Each round runs both, now the one first and now
// the other; a figure is the ratio of the two within a round, so that what else the machine does
// meanwhile meets both. A figure is worse if it is in all rounds, by more than a hundredth.
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { run } from './pipeline/run.js'

const usage = 'usage: node scripts/bench-paired.js BEFORE AFTER [--rounds N] [options]'

/** Of these more is better. */
const moreIsBetter = new Set(['prefaulted_percent'])

/** Single figures, not sums over a run: too rare for a ratio to say anything. */
const leftOut = new Set(['max_us', 'p999_us', 'start_ms'])

/** A difference so small is none. */
const slight = 0.01

function parse([before, after, ...rest]) {
  if (before === undefined || after === undefined) return undefined
  const at = rest.indexOf('--rounds')
  const rounds = at === -1 ? 5 : Number(rest.splice(at, 2)[1])
  return Number.isInteger(rounds) && rounds > 0
    ? { programs: [resolve(before), resolve(after)], rounds, options: rest }
    : undefined
}

/** What one program measures in one round, by what it is a figure of. */
async function measure(program, options, directory) {
  const file = join(directory, 'figures.json')
  const { status } = await run(program, ['--rounds', '1', '--json', file, ...options], {
    quiet: true,
  })
  if (status !== 0) throw new Error(`${program} ended with status ${status}`)
  const figures = new Map()
  for (const { name: workload, contenders } of JSON.parse(readFileSync(file, 'utf8')).workloads)
    for (const { name: contender, rounds } of contenders)
      for (const [metric, value] of Object.entries(rounds[0] ?? {}))
        if (!leftOut.has(metric)) figures.set(`${workload} | ${contender} | ${metric}`, value)
  return figures
}

const median = (values) => values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)]

/** The ratios of a figure, by how much more it was after than before. */
function line(figure, ratios) {
  const [least, most] = [Math.min(...ratios), Math.max(...ratios)]
  const more = moreIsBetter.has(figure.split(' | ').at(-1))
  const [up, down] = [least > 1 + slight, most < 1 - slight]
  const [worse, better] = more ? [down, up] : [up, down]
  const verdict = worse ? 'worse' : better ? 'better' : ''
  const spread = [median(ratios), least, most].map((ratio) => ratio.toFixed(2))
  return `| ${figure} | ${spread.join(' | ')} | ${verdict} |`
}

const wanted = parse(process.argv.slice(2))
if (wanted === undefined) {
  console.error(usage)
  process.exit(2)
}
const { programs, rounds, options } = wanted
const directory = mkdtempSync(join(tmpdir(), 'uffd-bench-paired-'))
const all = new Map()
try {
  for (let round = 0; round < rounds; round += 1) {
    const order = round % 2 === 0 ? [0, 1] : [1, 0]
    const measured = []
    for (const which of order) measured[which] = await measure(programs[which], options, directory)
    const [before, after] = measured
    for (const [figure, value] of before) {
      const other = after.get(figure)
      if (other === undefined || value <= 0) continue
      const ratios = all.get(figure) ?? []
      ratios.push(other / value)
      all.set(figure, ratios)
    }
    console.error(`round ${round + 1} of ${rounds}`)
  }
} finally {
  rmSync(directory, { recursive: true })
}
console.log('| workload | contender | figure | after / before | least | most | |')
console.log('|---|---|---|---|---|---|---|')
for (const [figure, ratios] of all) console.log(line(figure, ratios))
