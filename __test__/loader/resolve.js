import { existsSync } from 'node:fs'

const self = new URL('../../src/index.ts', import.meta.url)

/** The source that is meant by an import of what it is compiled to, if there is one. */
function sourceOf(specifier, parent) {
  if (specifier === 'uffd-rs') return self
  const isPath = /^(?:\.{1,2}\/|file:)/.test(specifier)
  if (!isPath || !/\.[jt]s$/.test(specifier)) return undefined
  const source = new URL(specifier.replace(/js$/, 'ts'), parent)
  return existsSync(source) ? source : undefined
}

export async function resolve(specifier, context, nextResolve) {
  const source = sourceOf(specifier, context.parentURL)
  if (source === undefined) return await nextResolve(specifier, context)
  return { url: source.href, format: 'module', shortCircuit: true }
}
