// What a user reads after a wrong call: a code, the thing at fault by its name, the value, and no
// riddle of the system's or the language's. A file is named in full, and the stack names the caller.
import { mkdirSync, writeFileSync } from 'node:fs'
import { join, relative } from 'node:path'
import { inspect } from 'node:util'
import test from 'ava'
import * as uffd from '../src/index.js'
import { snapshotFile, temporaryDirectory } from './support/stage.js'
import { touches } from './support/touches.js'

type Call = (at: Place) => unknown

interface Place {
  readonly directory: string
  readonly good: { readonly socket: string; readonly snapshot: string }
  /** A path in the directory, from where the process is. */
  readonly path: (name: string) => string
}

const pageSize = 4096
const { listen, restore, Trace } = uffd
const recorded = ({ good: { snapshot } }: Place) => Trace.record(touches(1), { snapshot, pageSize })
const client = ({ path }: Place) => new uffd.FirecrackerClient({ socketPath: path('fc.sock') })
const wrongly = <T>(value: unknown): T => value as T

const optionsOf: [option: string, value: unknown, says: RegExp][] = [
  ['snapshot', 7, /a path, got 7/],
  ['snapshot', '', /a path, got the string ""/],
  ['snapshot', new URL('http://a/b'), /a path or a file: URL, got a/],
  ['socket', `/${'x'.repeat(120)}`, /at most 107 bytes, not of 121/],
  ['socketOwner', 'root', /an object, got the string "root"/],
  ['socketMode', '660', /permissions such as 0o660.*got the string "660"/],
  ['socketMode', 660, /0o777, got 660/],
  ['prefetch', 7, /a trace or the file of one, got 7/],
  ['prefetchMode', 'read', /"install" or "fetch", got the string "read"/],
  ['faultAround', 0, /whole number of pages from 1 to \d+, got 0/],
  ['faultAround', 'on', /true, false or a number of pages, got the string "on"/],
  ['dirtyTracking', true, /"auto", "on" or "off", got true/],
  ['onUnservable', 'sigbus', /"poison", "kill" or "fail", got the string "sigbus"/],
  ['faultDeadlineMs', '30s', /whole number of milliseconds from 1 .*got the string "30s"/],
  ['faultDeadlineMs', -1, /got -1/],
  ['faultDeadlineMs', Infinity, /got Infinity/],
  ['handoffTimeoutMs', 1n, /got the bigint 1n/],
  ['maxGuests', 0.5, /whole number of guests from 1 .*got 0\.5/],
  ['killOnFailure', 'yes', /true or false, got the string "yes"/],
  ['trace', [], /true or false, got an empty array/],
  ['signal', new AbortController(), /an AbortSignal, got an AbortController/],
]

const ofListen = optionsOf.map(
  ([option, value, says]): [string, Call, uffd.UffdErrorCode, RegExp] => [
    `listen({ ${option}: ${inspect(value).slice(0, 40)} })`,
    ({ good }) => listen({ ...good, [option]: value }),
    'ERR_UFFD_INVALID_OPTION',
    new RegExp(`"${option}" to be .*${says.source}`),
  ],
)

const calls: [name: string, call: Call, code: uffd.UffdErrorCode, says: RegExp][] = [
  [
    'listen()',
    () => wrongly<() => unknown>(listen)(),
    'ERR_UFFD_INVALID_OPTION',
    /the options to be an object, got nothing/,
  ],
  [
    'listen({})',
    () => listen(wrongly({})),
    'ERR_UFFD_INVALID_OPTION',
    /"socket" is missing: expected a path/,
  ],
  [
    'listen("x")',
    () => listen(wrongly('x')),
    'ERR_UFFD_INVALID_OPTION',
    /object, got the string "x"/,
  ],
  ...ofListen,
  [
    'a misspelt option',
    ({ good }) => listen(wrongly({ ...good, faultArround: true })),
    'ERR_UFFD_INVALID_OPTION',
    /Unknown option "faultArround"\. Did you mean "faultAround"\?/,
  ],
  [
    'a snapshot that is not there',
    ({ good, path }) => listen({ ...good, snapshot: path('none') }),
    'ERR_UFFD_SNAPSHOT_MISSING',
    /snapshot \/.*\/none: No such file/,
  ],
  [
    'a directory as snapshot',
    ({ good, path }) => listen({ ...good, snapshot: path('dir') }),
    'ERR_UFFD_SNAPSHOT_NOT_A_FILE',
    /\/dir is a directory; give the guest's memory file/,
  ],
  [
    'a snapshot of 3 bytes',
    ({ good, path }) => listen({ ...good, snapshot: path('three') }),
    'ERR_UFFD_SNAPSHOT_LENGTH',
    /\/three has 3 bytes.*multiple of 4096/,
  ],
  [
    'a socket in no directory',
    ({ good, path }) => listen({ ...good, socket: path('no/s') }),
    'ERR_UFFD_SOCKET_NO_DIRECTORY',
    /\/no\/s" does not exist: create it first/,
  ],
  [
    'a file as socket',
    ({ good, path }) => listen({ ...good, socket: path('three') }),
    'ERR_UFFD_SOCKET_NOT_A_SOCKET',
    /\/three" exists and is not a socket: remove it/,
  ],
  [
    'a file as state directory',
    ({ good, path }) => listen({ ...good, stateDir: path('three') }),
    'ERR_UFFD_STATE_DIR',
    /\/three: .*Not a directory: give a directory, which is made if there is none/,
  ],
  [
    'a state directory in none',
    ({ good, path }) => listen({ ...good, stateDir: path('no/dir') }),
    'ERR_UFFD_STATE_DIR',
    /\/no\/dir: cannot make it: No such file or directory: make the directory above it first/,
  ],
  [
    'prefetch of no trace',
    ({ good, path }) => listen({ ...good, prefetch: path('three') }),
    'ERR_UFFD_TRACE_NOT_A_TRACE',
    /\/three: it is no trace file: a trace starts with the bytes .*, and this starts with 61 62 63/,
  ],
  [
    'an empty trace',
    ({ path }) => Trace.load(path('empty')),
    'ERR_UFFD_TRACE_NOT_A_TRACE',
    /\/empty: it is no trace file: it is empty/,
  ],
  [
    'Trace.load()',
    () => Trace.load(...wrongly<[string]>([])),
    'ERR_UFFD_INVALID_OPTION',
    /argument "file" is missing/,
  ],
  [
    'Trace.load of nothing',
    ({ path }) => Trace.load(path('none')),
    'ERR_UFFD_TRACE_LOAD',
    /\/none: No such file/,
  ],
  [
    'Trace.record([1])',
    ({ good }) => Trace.record(wrongly([1]), { snapshot: good.snapshot, pageSize }),
    'ERR_UFFD_INVALID_OPTION',
    /"entries\[0\]" to be an object, got 1/,
  ],
  [
    'Trace.record without a page size',
    ({ good }) => Trace.record([], wrongly({ snapshot: good.snapshot })),
    'ERR_UFFD_INVALID_OPTION',
    /"pageSize" is missing: expected 4096 or 2097152/,
  ],
  [
    'Trace.record of a page too many',
    ({ good }) => Trace.record(touches(99), { snapshot: good.snapshot, pageSize }),
    'ERR_UFFD_TRACE_ENTRY',
    /entry 0: the snapshot has no page 99, only 16 pages/,
  ],
  [
    'Trace.record of a page twice',
    ({ good }) => Trace.record(touches(1, 1), { snapshot: good.snapshot, pageSize }),
    'ERR_UFFD_TRACE_ENTRY',
    /entry 1: page 1 is in the trace already/,
  ],
  [
    'new Trace()',
    () => new (wrongly<new () => unknown>(Trace))(),
    'ERR_UFFD_INVALID_OPTION',
    /comes from Trace\.load, Trace\.record or a guest/,
  ],
  [
    'trace.save() into no directory',
    async (at) => (await recorded(at)).save(at.path('no/t')),
    'ERR_UFFD_TRACE_SAVE',
    /\/no\/t: No such file/,
  ],
  [
    'trace.merge("both", [])',
    async (at) => (await recorded(at)).merge(wrongly('both'), []),
    'ERR_UFFD_INVALID_OPTION',
    /argument "how" to be "union" or "intersection", got the string "both"/,
  ],
  [
    'trace.merge("union", trace)',
    async (at) => (await recorded(at)).merge('union', wrongly(await recorded(at))),
    'ERR_UFFD_INVALID_OPTION',
    /argument "others" to be an array, got a Trace/,
  ],
  [
    'applyTemplate({}, {})',
    () => uffd.applyTemplate(wrongly({}), wrongly({})),
    'ERR_UFFD_INVALID_OPTION',
    /argument "client" to be a FirecrackerClient, got an object/,
  ],
  [
    'applyTemplate(client, {})',
    (at) => uffd.applyTemplate(client(at), wrongly({})),
    'ERR_UFFD_INVALID_OPTION',
    /argument "template" to be what readTemplate or parseTemplate returned/,
  ],
  [
    'templateBalloon()',
    () => wrongly<() => unknown>(uffd.templateBalloon)(),
    'ERR_UFFD_INVALID_OPTION',
    /argument "template" is missing/,
  ],
  [
    'new FirecrackerClient("x")',
    () => new uffd.FirecrackerClient(wrongly('x')),
    'ERR_UFFD_INVALID_OPTION',
    /options to be an object, got the string "x"/,
  ],
  [
    'client.version() of nobody',
    (at) => client(at).version(),
    'ERR_UFFD_FIRECRACKER_SOCKET_MISSING',
    /no socket at \/.*\/fc\.sock; start Firecracker/,
  ],
  [
    'client.version({ timeoutMs: 0 })',
    (at) => client(at).version({ timeoutMs: 0 }),
    'ERR_UFFD_INVALID_OPTION',
    /"timeoutMs" to be a whole number of milliseconds from 1/,
  ],
  [
    'client.putMachineConfig({})',
    (at) => client(at).putMachineConfig(wrongly({})),
    'ERR_UFFD_INVALID_OPTION',
    /"vcpuCount" is missing/,
  ],
  [
    'readTemplate()',
    () => wrongly<() => unknown>(uffd.readTemplate)(),
    'ERR_UFFD_INVALID_OPTION',
    /argument "template" is missing: expected a path/,
  ],
  [
    'readTemplate of nothing',
    ({ path }) => uffd.readTemplate(path('none')),
    'ERR_UFFD_INVALID_TEMPLATE',
    /template \/.*\/none: no such file or directory$/,
  ],
  [
    'readTemplate of no JSON',
    ({ path }) => uffd.readTemplate(path('three')),
    'ERR_UFFD_INVALID_TEMPLATE',
    /template \/.*\/three is not JSON/,
  ],
  [
    'parseTemplate({})',
    () => uffd.parseTemplate({}),
    'ERR_UFFD_INVALID_TEMPLATE',
    /template field "firecracker" is missing: expected a version/,
  ],
  [
    'hasFeature("1.14.0", …)',
    () => uffd.hasFeature(wrongly('1.14.0'), 'clockRealtime'),
    'ERR_UFFD_INVALID_OPTION',
    /argument "version" to be a FirecrackerVersion, got the string "1\.14\.0"/,
  ],
  [
    'hasFeature(…, "nope")',
    () => uffd.hasFeature(uffd.FirecrackerVersion.parse('1.14.0'), wrongly('nope')),
    'ERR_UFFD_INVALID_OPTION',
    /argument "feature" to be .*"clockRealtime".*got the string "nope"/,
  ],
  ['restore({})', () => restore({}), 'ERR_UFFD_INVALID_OPTION', /either apiSocket or client/],
  [
    'restore with both',
    (at) => restore({ apiSocket: at.path('fc.sock'), client: client(at) }),
    'ERR_UFFD_INVALID_OPTION',
    /either apiSocket or client.*not both/,
  ],
  [
    'pauseAndSnapshot({}, {})',
    () => uffd.pauseAndSnapshot(wrongly({}), wrongly({})),
    'ERR_UFFD_INVALID_OPTION',
    /argument "vm\.client" is missing/,
  ],
]

/** Not what a person calls things. */
const riddles =
  /os error|E[A-Z]{4,}:|undefined|\[object|is not a function|Cannot read prop|a [AEIO][a-z]/

for (const [name, call, code, says] of calls) {
  test(name, async (t) => {
    const directory = temporaryDirectory(t)
    mkdirSync(join(directory, 'dir'))
    writeFileSync(join(directory, 'three'), 'abc')
    writeFileSync(join(directory, 'empty'), '')
    const good = { socket: join(directory, 's.sock'), snapshot: snapshotFile(t, 16) }
    const path = (file: string) => relative('.', join(directory, file))
    const error = await t.throwsAsync<uffd.UffdError>(async () => {
      await call({ directory, good, path })
    })
    t.true(error instanceof uffd.UffdError)
    t.is(error.code, code)
    t.regex(error.message, says)
    t.notRegex(error.message, riddles)
    t.regex(error.stack!, /messages\.test\.ts/)
  })
}

test('a version is shown as one', (t) => {
  const version = uffd.FirecrackerVersion.parse('v1.14.0-dev')
  t.is(inspect({ version }), '{ version: 1.14.0-dev }')
})
