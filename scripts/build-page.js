// Compiles the live page and puts its files into one module, for ES modules and for CommonJS.
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { extname, join } from 'node:path'
import { root, run, tool } from './pipeline/run.js'

const types = {
  '.html': 'text/html; charset=utf-8',
  '.css': 'text/css; charset=utf-8',
  '.js': 'text/javascript; charset=utf-8',
}

const source = join(root, 'src/page')
const compiled = mkdtempSync(join(tmpdir(), 'uffd-rs-page-'))
try {
  const { status, output } = await run(tool('tsc'), ['-p', source, '--outDir', compiled], {
    quiet: true,
  })
  if (status !== 0) throw new Error(`The page does not compile:\n${output}`)
  const files = Object.fromEntries([...filesOf(source), ...filesOf(compiled)])
  const text = JSON.stringify(files, undefined, 1)
  mkdirSync(join(root, 'dist/page'), { recursive: true })
  writeFileSync(join(root, 'dist/page/files.js'), `export default ${text}\n`)
  writeFileSync(join(root, 'dist/page/files.cjs'), `module.exports = ${text}\n`)
} finally {
  rmSync(compiled, { recursive: true })
}

/** Those that a browser asks for, by their paths. */
function filesOf(directory) {
  return readdirSync(directory).flatMap((name) => {
    const type = types[extname(name)]
    if (type === undefined) return []
    const body = readFileSync(join(directory, name), 'utf8')
    return [[name === 'index.html' ? '/' : `/page/${name}`, { type, body }]]
  })
}
