// The reference of the interface, as a page: what each entry of the package exports, in the order of
// what it is for. The types are read with ts-morph, which has a compiler of its own inside: that of
// this project has no interface for programs.
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { Node, Project } from 'ts-morph'
import { root } from '../pipeline/run.js'
import { Words } from './words.js'
import { described } from './described.js'

const beginning = `# API

Everything that the package exports, from its types: \`npm run docs:api\` writes this page. Addresses and
byte counts that can pass 2^53 are \`bigint\`; times are in the unit that a name ends with (\`timeoutMs\`);
a page is counted from the start of the snapshot. Whatever waits takes an \`AbortSignal\`, and whatever
fails has a code of [errors.md](errors.md).
`

/** What parts of the main entry are about, by the folder or file of their types. */
const parts = [
  ['Serving', /^dist\/(?:server|http|control|socket-access)/],
  ['Traces', /^dist\/trace\/|#Trace/],
  ['Guests', /^dist\/(?:guest|page-range)|^native\//],
  ['Restoring', /^dist\/restore\//],
  ['Reports', /^dist\/report\//],
  ["Firecracker's API", /^dist\/firecracker\//],
  ['Errors', /^dist\/errors/],
]

/** The types of each entry of the package, by the name that it is imported by. */
function entries() {
  const { name, exports } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'))
  return Object.entries(exports).flatMap(([path, { import: from }]) =>
    from?.types === undefined ? [] : [[name + path.slice(1), from.types]],
  )
}

/** Functions come first, since one begins there, then classes. */
const rank = (node) =>
  Node.isFunctionDeclaration(node) ? 0 : Node.isClassDeclaration(node) ? 1 : 2

/** The exports of an entry: their names and where they are declared. */
function exportsOf(project, types) {
  const source = project.addSourceFileAtPath(join(root, types))
  const all = [...source.getExportedDeclarations()].map(([name, [node]]) => {
    const file = node.getSourceFile().getFilePath().slice(root.length)
    return { name, node, place: `${file}#${name}` }
  })
  return all.toSorted((one, other) => rank(one.node) - rank(other.node))
}

/** Exports in sections: those of the main entry by what they are about, those of others by entry. */
function sections() {
  const config = {
    tsConfigFilePath: join(root, 'tsconfig.json'),
    skipAddingFilesFromTsConfig: true,
  }
  const project = new Project(config)
  return entries().flatMap(([entry, types], at) => {
    const all = exportsOf(project, types)
    if (at > 0) return [{ title: entry, all }]
    const titleOf = ({ place }) => parts.find(([, fits]) => fits.test(place))?.[0]
    const lost = all.find((one) => titleOf(one) === undefined)
    if (lost !== undefined) throw new Error(`scripts/api/page.js has no section for ${lost.place}`)
    return parts.map(([title]) => ({ title, all: all.filter((one) => titleOf(one) === title) }))
  })
}

/** The whole page. */
export function apiPage() {
  const all = sections()
  const headings = all.flatMap(({ title, all: exported }) => [
    title,
    ...exported.map(({ name }) => name),
  ])
  const words = new Words(['API', ...headings])
  const contents = all.map(({ title, all: exported }) => {
    const links = exported.map(({ name }) => words.linked(`\`${name}\``, name))
    return `**${words.linked(title, title)}**: ${links.join(', ')}\n`
  })
  const body = all.map(({ title, all: exported }) =>
    [`## ${title}\n`, ...exported.map((one) => described(one, words))].join('\n'),
  )
  return `${[beginning, ...contents, ...body].join('\n').trimEnd()}\n`
}
