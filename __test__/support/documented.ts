// The examples of the documents as programs: compiled as they stand on their page, and run in a Node of
// their own with paths of the test in the place of those on the page.
import { type ChildProcess, execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { type ExecutionContext } from 'ava'

export const root = fileURLToPath(new URL('../..', import.meta.url))

/** The pages that have examples. */
export const pages = [
  'README.md',
  ...readdirSync(join(root, 'docs'))
    .filter((name) => name.endsWith('.md'))
    .map((name) => `docs/${name}`),
]

/** The examples of a page in these languages, in order. */
export function examplesOf(page: string, ...languages: string[]): string[] {
  const text = readFileSync(join(root, page), 'utf8')
  const all = [...text.matchAll(/^```(\w+)\n(.*?)^```$/gms)]
  return all.filter(([, language]) => languages.includes(language!)).map(([, , code]) => code!)
}

/** A program on a page. */
export interface Example {
  /** `docs/report.md 0`: the page, and its place there. */
  readonly name: string
  readonly code: string
}

/** Every program. The reference has forms as `ts`, which are none, and examples as `js`. */
export const programs: readonly Example[] = pages.flatMap((page) => {
  const languages = page === 'docs/api.md' ? ['js'] : ['ts', 'js']
  return examplesOf(page, ...languages).map((code, at) => ({ name: `${page} ${at}`, code }))
})

/** What a reader has when an example begins, and its type. */
const given = {
  server: 'Server',
  guest: 'Guest',
  next: 'Guest',
  trace: 'Trace',
  socket: 'string',
  snapshot: 'string',
  apiSocket: 'string',
  snapshotState: 'string',
}

/** What examples take from the package without saying so each time. */
const imported = ['listen', 'restore', 'Trace']

const uses = (code: string, name: string) =>
  new RegExp(`(?<![.'\\w])${name}\\b(?!['/:])`).test(code)
const makes = (code: string, name: string) =>
  new RegExp(`const ${name}\\b|\\b${name},? .*\\} from`).test(code)

/** An example with what its page takes for granted, so that it compiles. */
function whole(code: string): string {
  const types = [...new Set(Object.values(given))].filter((type) => type !== 'string')
  const names = imported.filter((name) => uses(code, name) && !makes(code, name))
  const values = Object.entries(given).filter(([name]) => uses(code, name) && !makes(code, name))
  return [
    `import type { ${types.map((type) => `${type} as ${type}Given`).join(', ')} } from 'uffd-rs'`,
    ...(names.length === 0 ? [] : [`import { ${names.join(', ')} } from 'uffd-rs'`]),
    ...values.map(
      ([name, type]) => `declare const ${name}: ${type === 'string' ? type : `${type}Given`}`,
    ),
    code,
  ].join('\n')
}

/** Compiles programs within the checkout, where `uffd-rs` is the package itself; returns the folder. */
export async function compiled(
  t: ExecutionContext,
  files: Record<string, string>,
): Promise<string> {
  mkdirSync(join(root, 'target'), { recursive: true })
  const directory = mkdtempSync(join(root, 'target', 'documented-'))
  t.teardown(() => rmSync(directory, { recursive: true, force: true }))
  for (const [name, code] of Object.entries(files)) {
    writeFileSync(join(directory, `${name}.mts`), whole(code))
  }
  const compilerOptions = {
    noEmit: false,
    outDir: directory,
    rootDir: directory,
    paths: {
      'uffd-rs': [join(root, 'dist/index.d.ts')],
      'uffd-rs/opentelemetry': [join(root, 'dist/opentelemetry/index.d.ts')],
    },
    // A program on a page shows more than it uses.
    noUnusedLocals: false,
  }
  const config = { extends: join(root, 'tsconfig.json'), compilerOptions, include: ['*.mts'] }
  writeFileSync(join(directory, 'tsconfig.json'), JSON.stringify(config))
  const tsc = join(root, 'node_modules/.bin/tsc')
  await promisify(execFile)(tsc, ['-p', directory]).catch(({ stdout }: { stdout: string }) => {
    throw new Error(stdout)
  })
  return directory
}

/** What stands before an example in its Node: what the page takes for granted. */
const beginning = `
import { listen, Trace } from 'uffd-rs'
const { socket, snapshot, apiSocket, snapshotState, guests } = JSON.parse(process.env.GIVEN)
Object.assign(globalThis, { socket, snapshot, apiSocket, snapshotState })
if (guests !== undefined) {
  const server = await listen({ socket: socket + '.given', snapshot })
  globalThis.server = server
  console.log('given')
  for (const name of ['guest', 'next'].slice(0, guests)) {
    const guest = await server.accept()
    const prefault = guest.prefault.bind(guest)
    guest.prefault = async (pages) => {
      const report = await prefault(pages)
      console.log('prefaulted', report.installed)
      return report
    }
    globalThis[name] = guest
  }
  globalThis.trace = await Trace.record([], { snapshot, pageSize: 4096 })
}
`

/** What an example is given to run with. */
export interface Setting {
  readonly socket: string
  readonly snapshot: string
  readonly apiSocket?: string
  readonly snapshotState?: string
  /** As many guests of a server that is there, at \`SOCKET.given\`. */
  readonly guests?: number
  /** What stands on the page, and what takes its place. */
  readonly inPlace?: Readonly<Record<string, string>>
}

/** An example that runs. */
export class Running {
  readonly child: ChildProcess
  readonly directory: string
  stderr = ''
  readonly #lines: AsyncIterator<string>

  private constructor(child: ChildProcess, directory: string) {
    this.child = child
    this.directory = directory
    this.#lines = createInterface({ input: child.stdout! })[Symbol.asyncIterator]()
    child.stderr!.setEncoding('utf8').on('data', (text: string) => (this.stderr += text))
  }

  static async start(t: ExecutionContext, name: string, setting: Setting): Promise<Running> {
    const { inPlace = {}, ...of } = setting
    let { code } = programs.find((one) => one.name === name)!
    for (const [before, after] of Object.entries(inPlace)) {
      if (!code.includes(before)) throw new Error(`${name} has no ${before}`)
      code = code.replaceAll(before, after)
    }
    const directory = await compiled(t, { example: code })
    writeFileSync(join(directory, 'beginning.mjs'), beginning)
    const run =
      "await import('./beginning.mjs'); await import('./example.mjs'); console.log('done')"
    writeFileSync(join(directory, 'run.mjs'), run)
    const child = spawn(process.execPath, ['run.mjs'], {
      cwd: directory,
      env: { ...process.env, GIVEN: JSON.stringify(of) },
      stdio: ['ignore', 'pipe', 'pipe'],
    })
    t.teardown(() => child.kill('SIGKILL'))
    return new Running(child, directory)
  }

  /** The next line that fits. */
  async line(pattern: RegExp): Promise<string> {
    for (;;) {
      const { value, done } = await this.#lines.next()
      if (done === true) throw new Error(`It ended without ${pattern}: ${this.stderr}`)
      if (pattern.test(value)) return value
    }
  }

  /** Waits until it has complained so. */
  async complaint(pattern: RegExp): Promise<void> {
    while (!pattern.test(this.stderr)) await once(this.child.stderr!, 'data')
  }
}
