import test from 'ava'
import { applyTemplate, parseTemplate } from '../../src/index.js'
import { minorOf, releases } from '../support/firecracker-api/published.js'
import { withApi } from '../support/with-api.js'

const machineBody = {
  vcpu_count: 2,
  mem_size_mib: 512,
  track_dirty_pages: false,
  huge_pages: 'None',
}
const balloonBody = { amount_mib: 32, deflate_on_oom: true, stats_polling_interval_s: 0 }

for (const release of releases) {
  test(`${release}: a template reaches Firecracker as it is`, async (t) => {
    const { api, client } = await withApi(t, { version: release })
    const template = parseTemplate({
      firecracker: release,
      memSizeMib: 512,
      vcpuCount: 2,
      balloon: { amountMib: 32 },
    })
    await applyTemplate(client, template)
    t.deepEqual(
      api.requests.map(({ route, body }) => [route, body]),
      [
        ['GET /version', undefined],
        ['PUT /machine-config', machineBody],
        [
          'PUT /balloon',
          minorOf(release) < 14
            ? balloonBody
            : { ...balloonBody, free_page_hinting: false, free_page_reporting: true },
        ],
      ],
    )
  })
}

test('a template for a newer Firecracker than the one that runs is refused, nothing sent', async (t) => {
  const { api, client } = await withApi(t, { version: '1.13.1' })
  const template = parseTemplate({ firecracker: '1.14.1', memSizeMib: 512 })
  const error = await t.throwsAsync(applyTemplate(client, template), {
    code: 'ERR_UFFD_FIRECRACKER_UNSUPPORTED',
  })
  t.regex(error.message, /^The template needs Firecracker 1\.14\.1 or later, but this is 1\.13\.1/)
  t.deepEqual(
    api.requests.map((seen) => seen.route),
    ['GET /version'],
  )
})

test('pages that the Firecracker that runs does not have are refused, nothing sent', async (t) => {
  const { api, client } = await withApi(t, { version: '1.16.1' })
  const template = parseTemplate({
    firecracker: '1.17.0',
    memSizeMib: 512,
    hugePages: 'Transparent',
  })
  await t.throwsAsync(applyTemplate(client, template), {
    code: 'ERR_UFFD_FIRECRACKER_UNSUPPORTED',
    message: /^The template needs Firecracker 1\.17\.0 or later, but this is 1\.16\.1/,
  })
  t.deepEqual(
    api.requests.map((seen) => seen.route),
    ['GET /version'],
  )
})

test('what a template for an older Firecracker decided holds on a newer one', async (t) => {
  const { api, client } = await withApi(t, { version: '1.16.1' })
  const template = parseTemplate({
    firecracker: '1.13.1',
    memSizeMib: 512,
    balloon: { amountMib: 0 },
  })
  await applyTemplate(client, template)
  t.like(api.vm.balloon, { free_page_reporting: false, free_page_hinting: false })
})

test('a template without a balloon sends none', async (t) => {
  const { api, client } = await withApi(t)
  await applyTemplate(
    client,
    parseTemplate({ firecracker: '1.16.1', memSizeMib: 512, freePageReporting: false }),
  )
  t.is(api.vm.balloon, undefined)
})
