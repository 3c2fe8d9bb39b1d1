// Who handed a guest off, and what a guest is called: how clones are told apart.
import { spawn } from 'node:child_process'
import { chmodSync, readFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { createInterface } from 'node:readline'
import test from 'ava'
import { listen } from '../../src/index.js'
import { deadlineMs, GuestProcess } from '../support/guest.js'
import { index, Place } from '../support/place.js'
import { snapshotFile, Stage } from '../support/stage.js'
import { warnings } from '../support/warnings.js'

const pages = 16

test('the process of a guest is told by its user, program, cgroup and root', async (t) => {
  const stage = await Stage.open(t, pages)
  const { guest, process: vm } = await stage.guest()
  const of = (file: string) => readFileSync(`/proc/${vm.pid}/${file}`, 'utf8')
  t.like(guest.peer, {
    pid: vm.pid,
    uid: process.geteuid!(),
    gid: process.getegid!(),
    name: of('comm').trimEnd(),
    root: '/',
  })
  t.true(of('cgroup').includes(guest.peer.cgroup!))
  t.deepEqual(guest.tags, {})
})

test('tags are what the server was given for a process, also once another has taken it over', async (t) => {
  const place = new Place(t)
  const process = await place.left()
  const server = await place.here({
    tags: ({ pid, root, name }) => ({ vm: `vm-${pid}`, root: root ?? '-', name: name ?? '-' }),
  })
  const [guest] = server.recovered
  t.like(guest!.tags, { vm: `vm-${process.pid}`, root: '/' })
  t.not(guest!.tags['name'], '-')
  // Its user was known to the one that took the handoff.
  t.is(guest!.peer.uid, undefined)
})

test.serial('a guest whose tags cannot be had is served without, and that is said', async (t) => {
  const heard = warnings(t)
  for (const [tags, says] of [
    [
      () => {
        throw new Error('no such jail')
      },
      /no tags: no such jail/,
    ],
    [() => 'vm-7', /no tags: .*an object, got the string "vm-7"/],
    [() => ({ vm: 7 }), /no tags: .*"tags\.vm" to be a string, not empty, got 7/],
  ] as const) {
    const stage = await Stage.open(t, pages, { tags: tags as never })
    const { guest, process: vm } = await stage.guest()
    t.deepEqual(guest.tags, {})
    t.is(await vm.wrong(0, pages, 'source'), 0)
    t.regex((await heard.next()).message, says)
  }
  const files = { socket: '/s', snapshot: '/m' }
  await t.throwsAsync(listen({ ...files, tags: {} as never }), {
    message: /"tags" to be a function/,
  })
})

/** A server that sees no process of its guests, and tells each by its user. */
const server = (options: object) => `
  const { listen } = require(${JSON.stringify(index)})
  const tags = ({ uid }) => ({ vm: 'vm-' + uid })
  listen({ ...${JSON.stringify(options)}, tags }).then(async (server) => {
    console.log('{}')
    for await (const { id, peer, tags } of server) console.log(JSON.stringify({ id, peer, tags }))
  })`

const asRoot = process.geteuid?.() === 0 ? test : test.skip

asRoot('clones that cannot be seen are told apart', async (t) => {
  t.timeout(deadlineMs)
  const snapshot = snapshotFile(t, pages)
  chmodSync(dirname(snapshot), 0o755)
  const socket = join(dirname(snapshot), 'uffd.sock')
  const script = server({ socket, snapshot, socketMode: 0o666 })
  const args = ['--pid', '--fork', '--kill-child', process.execPath, '-e', script]
  const child = spawn('unshare', args, { stdio: ['ignore', 'pipe', 'inherit'] })
  t.teardown(() => child.kill('SIGKILL'))
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]()
  const line = async () => JSON.parse((await lines.next()).value as string) as Told
  await line()
  const told: Told[] = []
  for (const user of ['1001', '1002']) {
    const vm = await GuestProcess.start(
      socket,
      `${pages}`,
      '--user',
      user,
      '--user-mode-only',
      'auto',
    )
    t.teardown(() => vm.kill())
    told.push(await line())
    t.is(await vm.wrong(0, pages, 'source'), 0)
  }
  t.deepEqual(
    told.map(({ tags }) => tags),
    [{ vm: 'vm-1001' }, { vm: 'vm-1002' }],
  )
  t.not(told[0]!.id, told[1]!.id)
  // JSON leaves out what is not known.
  for (const [at, uid] of [1001, 1002].entries()) t.like(told[at]!.peer, { uid })
  for (const { peer } of told) t.deepEqual(Object.keys(peer).toSorted(), ['gid', 'uid'])
})

interface Told {
  readonly id: string
  readonly peer: object
  readonly tags: object
}
