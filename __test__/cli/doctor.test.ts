import { readdirSync } from 'node:fs'
import test from 'ava'
import { type Facts } from '../../src/cli/doctor/facts.js'
import { canServe, descriptorsOfGuest, findings } from '../../src/cli/doctor/findings.js'
import { report } from '../../src/cli/doctor/report.js'
import { runCommand } from '../support/command.js'
import { Stage } from '../support/stage.js'

/** A host that has everything. */
const perfect: Facts = {
  kernel: '6.12.0',
  uid: 1000,
  host: {
    systemCall: 'granted',
    userModeOnly: 'granted',
    device: 'granted',
    features: 0x1ffffn,
    pidfd: 'granted',
    peerPidfd: 'granted',
    memfd: 'granted',
  },
  unprivilegedUserfaultfd: 0,
  hugePages: { total: 512, free: 512 },
  openFiles: { soft: 65_536, hard: 65_536 },
  tracing: { child: 'granted', capable: true, scope: 1 },
  places: [{ path: '/run', isTmpfs: true, access: 'granted', freeBytes: 2 ** 30 }],
  guardian: { program: '/package/uffd-rs-guardian.linux-x64-gnu', access: 'granted' },
  systemd: { isThere: true, version: 257, isTold: false, storeMax: undefined },
  cores: 4,
  kvm: 'granted',
  firecracker: 'Firecracker v1.14.0',
}

const host = (changes: Partial<Facts['host']>): Facts => ({
  ...perfect,
  host: { ...perfect.host, ...changes },
})

const tracing = (changes: Partial<Facts['tracing']>): Facts => ({
  ...perfect,
  tracing: { ...perfect.tracing, ...changes },
})

const systemd = (changes: Partial<Facts['systemd']>): Facts => ({
  ...perfect,
  systemd: { ...perfect.systemd, ...changes },
})

const place = (changes: Partial<Facts['places'][number]>): Facts => ({
  ...perfect,
  places: [{ ...perfect.places[0]!, ...changes }],
})

const flaws = (facts: Facts) => findings(facts).filter(({ verdict }) => verdict !== 'good')

test('a host that has everything has no flaw', (t) => t.deepEqual(flaws(perfect), []))

for (const [what, facts, id, serves, change] of [
  [
    'the device is closed to this user',
    host({ device: 'denied', systemCall: 'granted' }),
    'userfaultfd',
    true,
    /user 1000 .* \/dev\/userfaultfd/,
  ],
  [
    'there is no device, and the system call is for root',
    host({ device: 'absent', systemCall: 'denied' }),
    'userfaultfd',
    true,
    /vm\.unprivileged_userfaultfd=1/,
  ],
  [
    'the kernel has no userfaultfd',
    host({ device: 'absent', systemCall: 'absent', userModeOnly: 'absent' }),
    'userfaultfd',
    false,
    /CONFIG_USERFAULTFD/,
  ],
  ['the kernel cannot poison', host({ features: 0x3fffn }), 'feature-POISON', true, /Linux 6\.6/],
  ['no REMOVE', host({ features: 0x1fff7n }), 'feature-EVENT_REMOVE', false, /Linux 4\.11/],
  ['no pidfd', host({ pidfd: 'absent' }), 'pidfd', false, /Linux 5\.3/],
  ['no SO_PEERPIDFD', host({ peerPidfd: 'absent' }), 'pidfd', true, /Linux 6\.5/],
  ['no memfd', host({ memfd: 'denied' }), 'memfd', false, /memfd_create/],
  [
    'no huge pages',
    { ...perfect, hugePages: { total: 0, free: 0 } },
    'huge-pages',
    true,
    /vm\.nr_hugepages/,
  ],
  [
    'few open files, which this user can change',
    { ...perfect, openFiles: { soft: 1024, hard: 4096 } },
    'open-files',
    true,
    /ulimit -n 4096/,
  ],
  ['no pidfd_getfd', tracing({ child: 'absent' }), 'taking-over', true, /Linux 5\.6/],
  ['pidfd_getfd forbidden', tracing({ child: 'denied' }), 'taking-over', true, /seccomp/],
  ['nobody may trace', tracing({ scope: 3 }), 'taking-over', true, /reboot/],
  [
    'who may trace nobody but its children',
    tracing({ capable: false }),
    'taking-over',
    true,
    /AmbientCapabilities=.*ptrace_scope=0/,
  ],
  [
    'who may trace its own user',
    tracing({ capable: false, scope: undefined }),
    'taking-over',
    true,
    /CAP_SYS_PTRACE/,
  ],
  ['/run on a disk', place({ isTmpfs: false }), 'state-dir', true, /RuntimeDirectory=/],
  ['/run closed to this user', place({ access: 'denied' }), 'state-dir', true, /uid=1000/],
  ['/run full', place({ freeBytes: 4096 }), 'state-dir', true, /tmpfs/],
  [
    'no guardian',
    { ...perfect, guardian: { program: undefined, access: 'absent' as const } },
    'guardian',
    true,
    /--omit=optional/,
  ],
  ['no systemd', systemd({ isThere: false }), 'service-manager', true, /--guardian/],
  ['an old systemd', systemd({ version: 252 }), 'service-manager', true, /systemd 254/],
  [
    'a unit without a store',
    systemd({ isTold: true }),
    'service-manager',
    true,
    /FileDescriptorStoreMax=/,
  ],
  ['one processor', { ...perfect, cores: 1 }, 'cores', true, /second processor/],
  ['no KVM', { ...perfect, kvm: 'absent' as const }, 'kvm', true, /kvm module/],
] as const) {
  test(`found: ${what}`, (t) => {
    const flaw = flaws(facts).find((finding) => finding.id === id)
    t.truthy(flaw?.lost)
    t.regex(flaw?.change ?? '', change)
    t.is(canServe(findings(facts)), serves)
    t.regex(report(findings(facts), serves, false), serves ? /can be served/ : /cannot be served/)
  })
}

interface Line {
  readonly event: string
  readonly level: string
  readonly code: string
  readonly status: 'good' | 'limited' | 'bad'
  readonly found: string
  readonly lost?: string
  readonly change?: string
  readonly msg: string
}

test('a service manager that keeps guests is no flaw', (t) => {
  t.deepEqual(flaws(systemd({ isTold: true, storeMax: 64 })), [])
})

test('this host can serve, and says so for people and programs', async (t) => {
  const json = await runCommand(t, 'doctor')
  t.is(json.status, 0)
  const lines = json.stdout.split('\n').map((line) => JSON.parse(line) as Line)
  const verdict = lines.pop()
  t.like(verdict, { event: 'doctor', level: 'info', canServe: true, uid: process.getuid!() })
  const levels = { good: 'info', limited: 'warn', bad: 'error' }
  for (const { event, level, code, status, found, lost, change, msg } of lines) {
    t.is(event, 'finding')
    t.regex(code, /^[\w-]+$/)
    t.is(level, levels[status], code)
    t.true(msg.endsWith(`: ${found}`), code)
    // What is lost comes with what would have to change.
    for (const told of [lost, change]) t.is(typeof told, status === 'good' ? 'undefined' : 'string')
  }
  t.is(new Set(lines.map(({ code }) => code)).size, lines.length)
  const text = await runCommand(t, 'doctor', '--no-json')
  t.is(text.status, 0)
  t.regex(text.stdout, /Guests can be served here\./)
  t.is(text.stdout.match(/^[✓!✗] /gm)?.length, lines.length)
})

test.serial('a guest needs as many descriptors as the estimate says', async (t) => {
  const stage = await Stage.open(t, 16)
  // The first guest, and the first page, bring descriptors that all share.
  const first = await stage.guest()
  t.is(await first.process.wrong(0, 16, 'source'), 0)
  const before = readdirSync('/proc/self/fd').length
  const { process } = await stage.guest()
  t.is(await process.wrong(0, 16, 'source'), 0)
  // The pipes to the guest process are those of the test.
  const pipes = 2
  t.is(readdirSync('/proc/self/fd').length - before - pipes, descriptorsOfGuest)
})
