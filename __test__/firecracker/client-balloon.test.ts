import test from 'ava'
import { minorOf, releases } from '../support/firecracker-api/published.js'
import { withApi } from '../support/with-api.js'

const plain = { amountMib: 0, deflateOnOom: true }
const plainBody = { amount_mib: 0, deflate_on_oom: true }

for (const release of releases) {
  const has = minorOf(release) >= 14

  test(`${release}: a balloon with reporting left out`, async (t) => {
    const { api, client } = await withApi(t, { version: release })
    await client.putBalloon({ ...plain, statsPollingIntervalS: 1 })
    t.deepEqual(api.bodies('PUT /balloon'), [
      {
        ...plainBody,
        stats_polling_interval_s: 1,
        ...(has && { free_page_hinting: false, free_page_reporting: true }),
      },
    ])
  })

  test(`${release}: a balloon with reporting turned off`, async (t) => {
    const { api, client } = await withApi(t, { version: release })
    await client.putBalloon({ ...plain, freePageReporting: false, freePageHinting: false })
    t.deepEqual(api.bodies('PUT /balloon'), [
      { ...plainBody, ...(has && { free_page_hinting: false, free_page_reporting: false }) },
    ])
  })

  test(`${release}: a balloon with both turned on`, async (t) => {
    const { api, client } = await withApi(t, { version: release })
    const asked = client.putBalloon({ ...plain, freePageReporting: true, freePageHinting: true })
    if (has) {
      await asked
      t.deepEqual(api.bodies('PUT /balloon'), [
        { ...plainBody, free_page_hinting: true, free_page_reporting: true },
      ])
    } else {
      await t.throwsAsync(asked, { code: 'ERR_UFFD_FIRECRACKER_UNSUPPORTED' })
      t.deepEqual(api.bodies('PUT /balloon'), [])
    }
  })

  test(`${release}: a balloon after boot is refused by Firecracker`, async (t) => {
    const { api, client } = await withApi(t, { version: release })
    api.boot()
    await t.throwsAsync(client.putBalloon(plain), {
      code: 'ERR_UFFD_FIRECRACKER_HTTP',
      message: 'PUT /balloon: Firecracker answered 400: Not supported after the microVM started.',
    })
  })
}
