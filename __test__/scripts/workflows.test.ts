// What a workflow says is only tried by running it: here is what can be told without.
import { readdirSync, readFileSync } from 'node:fs'
import test from 'ava'
import { promisedGlibc } from '../../scripts/release/glibc.js'

const folder = new URL('../../.github/workflows/', import.meta.url)
const workflows = new Map(
  readdirSync(folder).map((name) => [name, readFileSync(new URL(name, folder), 'utf8')]),
)
const release = workflows.get('release.yml')!

/** The text of a job of the release. */
const job = (name: string) =>
  release.split(new RegExp(`^  ${name}:$`, 'm'))[1]!.split(/^  \w+:$/m)[0]!

for (const [name, text] of workflows) {
  test(`the actions of ${name} are pinned to commits, with their versions`, (t) => {
    const used = [...text.matchAll(/uses: (.+)$/gm)].map(([, what]) => what!)
    t.true(used.length > 0)
    for (const what of used) t.regex(what, /^[\w-]+\/[\w-]+@[\da-f]{40} # v\d+\.\d+\.\d+$/)
    t.is(new Set(used).size, new Set(used.map((what) => what.split('@')[0])).size)
  })

  test(`${name} may read and no more, and keeps no token`, (t) => {
    t.regex(text, /^permissions:\n {2}contents: read\n/m)
    const checkouts = [
      ...text.matchAll(/actions\/checkout@.*\n {8}with:\n {10}persist-credentials: false/g),
    ]
    t.is(checkouts.length, [...text.matchAll(/actions\/checkout@/g)].length)
    // What an event brings along is no text of a script.
    t.notRegex(text, /run:.*\$\{\{ (?:github|inputs|steps)\./)
  })
}

test('only what publishes can, and it runs nothing else', (t) => {
  t.is([...release.matchAll(/id-token: write/g)].length, 1)
  const publish = job('publish')
  t.regex(publish, /id-token: write/)
  const runs = [...publish.matchAll(/run: (.+)$/gm)].map(([, what]) => what)
  t.deepEqual(runs, ['node scripts/release/publish.js out'])
})

test('every target of the package is built, and the glibc of a build is the promised one', (t) => {
  const manifest = readFileSync(new URL('../../package.json', import.meta.url), 'utf8')
  const { targets } = (JSON.parse(manifest) as { napi: { targets: string[] } }).napi
  const built = [...job('build').matchAll(/^ {10}- (\S+-linux-\S+)$/gm)].map(([, name]) => name!)
  const expected = targets.map((name) => (name.endsWith('gnu') ? `${name}.${promisedGlibc}` : name))
  t.deepEqual(built.toSorted(), expected.toSorted())
})

test('what is tried and published is what was packed', (t) => {
  const [packed] = [...job('pack').matchAll(/name: (\S+)\n {10}path: out\/\*\.tgz/g)]
  for (const name of ['try', 'publish']) {
    const [taken] = [
      ...job(name).matchAll(/download-artifact@.*\n.*\n {10}name: (\S+)\n {10}path: out/g),
    ]
    t.is(taken![1], packed![1])
  }
  t.deepEqual(
    ['build', 'pack', 'try', 'publish'].map((name) => /needs: (\w+)/.exec(job(name))![1]),
    ['check', 'build', 'pack', 'try'],
  )
})
