import { execFileSync } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import test from 'ava'

const loader = fileURLToPath(new URL('../../native/index.cjs', import.meta.url))

/** What loading the native part says where `process` is like this. */
function loading(pretend: Record<string, string>): { code: string; message: string } {
  const script = `
    for (const [name, value] of Object.entries(${JSON.stringify(pretend)})) {
      Object.defineProperty(process, name, { value })
    }
    try {
      require(${JSON.stringify(loader)})
      console.log('{}')
    } catch ({ code, message }) {
      console.log(JSON.stringify({ code, message }))
    }`
  return JSON.parse(execFileSync(process.execPath, ['-e', script], { encoding: 'utf8' }))
}

test('elsewhere than on Linux, the import says that Linux is needed', (t) => {
  for (const platform of ['darwin', 'win32']) {
    const { code, message } = loading({ platform })
    t.is(code, 'ERR_UFFD_PLATFORM')
    t.regex(message, /needs Linux/)
    t.regex(message, new RegExp(platform))
  }
})

test('a processor nobody builds for is named', (t) => {
  const { code, message } = loading({ arch: 's390x' })
  t.is(code, 'ERR_UFFD_PLATFORM')
  t.regex(message, /linux-s390x/)
})

test('a missing platform package is named, with the way to it', (t) => {
  const other = process.arch === 'x64' ? 'arm64' : 'x64'
  const { code, message } = loading({ arch: other })
  t.is(code, 'ERR_UFFD_PLATFORM')
  t.regex(message, new RegExp(`uffd-rs-linux-${other}-(gnu|musl), is not installed`))
})
