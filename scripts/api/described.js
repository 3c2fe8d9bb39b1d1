// One export as a section: its comment, its form as code, its members as a table.
import { Node } from 'ts-morph'

/** The text of a node's comment, and its tags by name. */
function commentOf(node) {
  const doc = node.getJsDocs?.().at(-1)
  const tags = new Map()
  for (const tag of doc?.getTags() ?? []) {
    const text = tag
      .getText()
      .replace(/^@\w+\s*/, '')
      .replaceAll(/\n\s*\*? ?/g, '\n')
      .trim()
    tags.set(tag.getTagName(), [...(tags.get(tag.getTagName()) ?? []), text])
  }
  return { text: doc?.getDescription().trim() ?? '', tags }
}

/** What an error tag says: `{RestoreError} if …`. That an error is one of this package goes without. */
const thrown = (tags) =>
  (tags.get('throws') ?? []).map((text) => {
    const named = text.replace(/^\{UffdError\} /, '').replaceAll(/\{(\w+)\}/g, '{@link $1}')
    return `Throws ${named}`
  })

/** What every error, emitter or object has anyhow. */
const usual = new Set(['name', 'removeAllListeners', 'toString', 'toJSON', '[inspect.custom]'])

const isHidden = (member) =>
  Node.isConstructorDeclaration(member) ||
  member.getName().startsWith('#') ||
  usual.has(member.getName()) ||
  ['private', 'protected'].includes(member.getScope?.())

/** A declaration without its comments. */
const plain = (node) =>
  node
    .getText()
    .replace(/^export /, '')
    .replace(/^declare /, '')
    .replaceAll(/^\s*\/\*\*.*?\*\/\n/gms, '')

const signature = (member) => {
  const parameters = member.getParameters().map((one) => one.getText())
  const type = member.getReturnTypeNode()?.getText() ?? member.getReturnType().getText(member)
  return { parameters: parameters.join(', '), type }
}

/** The first column of a member's row, its type, and its comment. */
function memberOf(member) {
  const isStatic = Node.isStaticable(member) && member.isStatic() ? 'static ' : ''
  if (Node.isMethodDeclaration(member) || Node.isMethodSignature(member)) {
    const { parameters, type } = signature(member)
    return { name: `${isStatic}${member.getName()}(${parameters})`, type }
  }
  const optional = member.hasQuestionToken?.() ? '?' : ''
  const type = member.getTypeNode?.() ?? member.getReturnTypeNode?.()
  return { name: `${isStatic}${member.getName()}${optional}`, type: type?.getText() ?? '' }
}

/** `undefined` says nothing of what may be left out. */
const wanted = (name, type) => (name.endsWith('?') ? type.replace(/ \| undefined$/, '') : type)

function rowOf(member, own, words) {
  const { name, type } = memberOf(member)
  const { text, tags } = commentOf(member)
  const standard =
    tags.get('default')?.map((value) => `Default: ${value.replaceAll('`', '')}.`) ?? []
  const what = [text, ...standard, ...thrown(tags)].filter((part) => part !== '').join('\n\n')
  const shown = name.replaceAll('|', '\\|').replaceAll(/\s+/g, ' ')
  return `| \`${shown}\` | ${words.type(wanted(name, type))} | ${words.cell(what, own)} |`
}

function tableOf(node, own, words) {
  const members = node.getMembers().filter((member) => !isHidden(member))
  if (members.length === 0) return ''
  const rows = members.map((member) => rowOf(member, own, words))
  return `| member | type | what it is |\n|---|---|---|\n${rows.join('\n')}\n`
}

/** What stands over the members: what it extends. */
function heritage(node, words) {
  const bases = Node.isClassDeclaration(node)
    ? [node.getExtends(), ...node.getImplements()]
    : node.getExtends()
  const names = bases.filter((base) => base !== undefined).map((base) => words.type(base.getText()))
  return names.length === 0 ? '' : `Is ${names.join(', ')} as well.\n`
}

/** Code that is longer than this is a list of values, which a reader has elsewhere. */
const longest = 1200

/** A type that is taken from values, as those; unless there are too many to read. */
function values(node) {
  const type = node.getTypeNodeOrThrow().getText()
  if (!type.includes('typeof ')) return plain(node)
  const all = node.getType().getUnionTypes()
  const union = all.map((one) => one.getText(node).replaceAll('"', "'")).join(' | ')
  return union === '' || union.length > longest / 2
    ? plain(node)
    : `type ${node.getName()} = ${union};`
}

/** The form of what has no members. */
function code(node) {
  const statement = Node.isVariableDeclaration(node) ? node.getVariableStatementOrThrow() : node
  const text = Node.isTypeAliasDeclaration(node) ? values(node) : plain(statement)
  const shown = text.length <= longest ? text : `${text.slice(0, text.indexOf('{'))}{ … };`
  return `\`\`\`ts\n${shown.replace(/([^;])$/, '$1;')}\n\`\`\`\n`
}

function shape(node, own, words) {
  const hasMembers = Node.isInterfaceDeclaration(node) || Node.isClassDeclaration(node)
  return hasMembers ? [heritage(node, words), tableOf(node, own, words)] : [code(node)]
}

/** The section of an export. */
export function described({ name, node }, words) {
  const documented = Node.isVariableDeclaration(node) ? node.getVariableStatementOrThrow() : node
  const { text, tags } = commentOf(documented)
  const examples = (tags.get('example') ?? []).map((example) => `${example}\n`)
  const told = [text, ...thrown(tags)].filter((part) => part !== '')
  const prose = told.map((part) => `${words.text(part, name)}\n`)
  const all = [`### ${name}\n`, ...prose, ...shape(node, name, words), ...examples]
  return all.filter((part) => part !== '').join('\n')
}
