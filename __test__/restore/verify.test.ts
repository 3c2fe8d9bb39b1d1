// What is restored has to be what was described, and the trace one of this snapshot.
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import {
  parseTemplate,
  restore,
  type RestoreError,
  type TemplateInput,
  Trace,
} from '../../src/index.js'
import { minorOf, releases } from '../support/firecracker-api/published.js'
import { Firecracker } from '../support/firecracker.js'
import { snapshotFile, temporaryDirectory } from '../support/stage.js'
import { touches } from '../support/touches.js'

const reporting = { amount_mib: 0, deflate_on_oom: true, free_page_reporting: true }
const plain = { ...reporting, free_page_reporting: false }

for (const release of releases) {
  const isOld = minorOf(release) < 14

  for (const feature of ['freePageReporting', 'freePageHinting'] as const) {
    test(`${release}: ${feature} asked for`, async (t) => {
      const name = feature === 'freePageReporting' ? 'free_page_reporting' : 'free_page_hinting'
      const balloon = { amount_mib: 0, deflate_on_oom: true, ...(!isOld && { [name]: true }) }
      const firecracker = await Firecracker.start(t, { version: release, snapshot: { balloon } })
      const restored = firecracker.restore({ [feature]: true })
      if (isOld) {
        const words = `${feature} needs Firecracker 1\\.14\\.0 or later, but this is ${release}`
        await t.throwsAsync(restored, {
          code: 'ERR_UFFD_RESTORE_VERSION',
          message: new RegExp(words),
        })
        t.deepEqual(firecracker.routes, ['GET /version'], 'nothing was started')
      } else {
        t.true((await restored)[feature])
      }
    })
  }

  test(`${release}: reporting neither asked for nor refused is as in the snapshot`, async (t) => {
    const balloon = isOld ? { amount_mib: 0, deflate_on_oom: true } : reporting
    const firecracker = await Firecracker.start(t, { version: release, snapshot: { balloon } })
    const vm = await firecracker.restore()
    t.is(vm.freePageReporting, !isOld)
    t.false(vm.freePageHinting)
  })
}

const disagreeing: [name: string, balloon: typeof plain | undefined, wanted: boolean, RegExp][] = [
  ['reporting on', reporting, false, /freePageReporting should be false and is true/],
  ['reporting off', plain, true, /freePageReporting should be true and is false/],
  ['no balloon', undefined, true, /should be true and is false, because it has no balloon/],
]

for (const [name, balloon, freePageReporting, message] of disagreeing) {
  test(`a snapshot with ${name} when the other is wanted never runs`, async (t) => {
    const firecracker = await Firecracker.start(t, { snapshot: { balloon } })
    const error = await t.throwsAsync<RestoreError>(firecracker.restore({ freePageReporting }), {
      code: 'ERR_UFFD_RESTORE_VERIFY',
      message,
    })
    t.is(error.vm, 'unusable')
    t.is(firecracker.api.vm.state, 'Paused')
  })
}

const input: TemplateInput = { firecracker: '1.15.0', memSizeMib: 128, freePageReporting: false }

test('a template names the snapshot, and its file is enough', async (t) => {
  const firecracker = await Firecracker.start(t, { version: '1.15.0' })
  const file = join(firecracker.snapshot, '..', 'template.json')
  const snapshot = { statePath: 'state', memoryPath: 'mem' }
  writeFileSync(file, JSON.stringify({ ...input, trackDirtyPages: true, snapshot }))
  const vm = await restore({ apiSocket: firecracker.api.socketPath, template: file })
  t.teardown(() => vm.stop())
  t.like(firecracker.api.bodies('PUT /snapshot/load')[0], {
    snapshot_path: firecracker.options.snapshotState,
    track_dirty_pages: true,
  })
  t.is(await firecracker.guest.wrong(0, firecracker.pages, 'source'), 0)
})

test('a template without a snapshot does not replace the options', async (t) => {
  const firecracker = await Firecracker.start(t)
  const options = { apiSocket: firecracker.api.socketPath, template: parseTemplate(input) }
  await t.throwsAsync(restore(options), {
    code: 'ERR_UFFD_RESTORE_TEMPLATE',
    message: /"snapshotState" is missing: expected a path/,
  })
})

const others: [name: string, template: Partial<TemplateInput>, message: RegExp][] = [
  ['memory', { memSizeMib: 256 }, /memSizeMib should be 256 and is 128/],
  ['vCPUs', { vcpuCount: 4 }, /vcpuCount should be 4 and is 1/],
  ['pages', { hugePages: '2M' }, /hugePages should be 2M and is None/],
]

for (const [name, more, message] of others) {
  test(`a microVM with other ${name} than its template is refused`, async (t) => {
    const firecracker = await Firecracker.start(t)
    const template = parseTemplate({ ...input, ...more })
    const code = 'ERR_UFFD_RESTORE_VERIFY'
    // Else the pool would be asked for the pages that the template speaks of.
    const restored = firecracker.restore({ template, requireHugePages: false })
    await t.throwsAsync(restored, { code, message })
  })
}

test('a template that reports, for a Firecracker that cannot', async (t) => {
  const firecracker = await Firecracker.start(t, { version: '1.13.1' })
  const template = parseTemplate({ firecracker: '1.14.1', memSizeMib: 128 })
  await t.throwsAsync(firecracker.restore({ template }), {
    code: 'ERR_UFFD_RESTORE_VERSION',
    message: /The template needs Firecracker 1\.14\.1 or later, but this is 1\.13\.1/,
  })
  t.deepEqual(firecracker.routes, ['GET /version'])
})

test('an option that contradicts the template', async (t) => {
  const firecracker = await Firecracker.start(t)
  const template = parseTemplate(input)
  await t.throwsAsync(firecracker.restore({ template, freePageReporting: true }), {
    code: 'ERR_UFFD_RESTORE_TEMPLATE',
    message: /"freePageReporting" to be false, as in the template/,
  })
  t.deepEqual(firecracker.routes, [])
})

test('pages that this version cannot choose: nothing is started', async (t) => {
  const firecracker = await Firecracker.start(t, { version: '1.16.1' })
  await t.throwsAsync(firecracker.restore({ hugePages: '2M' }), {
    code: 'ERR_UFFD_RESTORE_VERSION',
    message: /hugePagesOnLoad needs Firecracker 1\.17\.0 or later, but this is 1\.16\.1/,
  })
  t.deepEqual(firecracker.routes, ['GET /version'])
})

test('an override that this version does not have: nothing is started', async (t) => {
  const firecracker = await Firecracker.start(t, { version: '1.15.0' })
  await t.throwsAsync(firecracker.restore({ vsockOverride: { udsPath: '/v' } }), {
    code: 'ERR_UFFD_RESTORE_VERSION',
    message: /vsockOverride needs Firecracker 1\.16\.0 or later, but this is 1\.15\.0/,
  })
  t.deepEqual(firecracker.routes, ['GET /version'])
})

const wanted = [3, 4, 5, 20]

/** A trace of these pages, as a file. */
async function traceFile(t: ExecutionContext, snapshot: string, pageSize: 4096 | 2097152 = 4096) {
  const trace = await Trace.record(touches(...wanted), { snapshot, pageSize })
  const file = join(temporaryDirectory(t), 'boot.trace')
  await trace.save(file)
  return { trace, file }
}

for (const given of ['file', 'trace'] as const) {
  test(`a trace given as ${given} is prefetched`, async (t) => {
    const firecracker = await Firecracker.start(t)
    const traces = await traceFile(t, firecracker.snapshot)
    const vm = await firecracker.restore({ prefetch: traces[given] })
    t.like(await vm.prefetched, { requested: wanted.length, installed: wanted.length, failed: 0 })
    const states = await vm.guest.pageStates()
    for (const page of wanted) t.is(states.stateOf(page), 'faulted')
    t.is(states.counts.faulted, wanted.length)
  })

  test(`a trace of another snapshot given as ${given}: nothing is started`, async (t) => {
    const firecracker = await Firecracker.start(t)
    const traces = await traceFile(t, snapshotFile(t, firecracker.pages + 1))
    const error = await t.throwsAsync<RestoreError>(
      firecracker.restore({ prefetch: traces[given] }),
      { code: 'ERR_UFFD_RESTORE_PREFETCH' },
    )
    t.like(error.cause, { code: 'ERR_UFFD_TRACE_WRONG_SNAPSHOT' })
    t.is(error.vm, 'untouched')
    t.deepEqual(firecracker.routes, [])
  })
}

test('a trace of pages of another size is refused once the guest tells its own', async (t) => {
  const firecracker = await Firecracker.start(t, { pages: 512 * 32 })
  const { file } = await traceFile(t, firecracker.snapshot, 2097152)
  // The pool, which has none of the pages that the trace speaks of, is not asked for this guest.
  const restored = firecracker.restore({ prefetch: file })
  const error = await t.throwsAsync<RestoreError>(restored, {
    code: 'ERR_UFFD_RESTORE_PREFETCH',
    message: /trace was recorded with pages of 2 MiB, and pages are of 4 KiB here/,
  })
  t.is(error.vm, 'unusable')
})
