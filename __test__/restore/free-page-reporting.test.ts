// The choice of free page reporting, from a template's file to the guest's memory.
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import test from 'ava'
import { applyTemplate, FirecrackerClient, readTemplate } from '../../src/index.js'
import { FirecrackerApi } from '../support/firecracker-api.js'
import { Firecracker } from '../support/firecracker.js'
import { temporaryDirectory } from '../support/stage.js'

const freePages = { page: 8, count: 24 }

for (const [firecracker, choice, reports] of [
  ['1.14.1', {}, true],
  ['1.16.1', { freePageReporting: true }, true],
  ['1.16.1', { freePageReporting: false }, false],
  ['1.13.1', {}, false],
] as const) {
  const name = `${firecracker} with ${JSON.stringify(choice)}`

  test(`${name}: reported pages ${reports ? 'read as zeros' : 'do not exist'}`, async (t) => {
    const file = join(temporaryDirectory(t), 'template.json')
    writeFileSync(file, JSON.stringify({ firecracker, memSizeMib: 128, balloon: {}, ...choice }))
    const template = await readTemplate(file)

    // The VM the snapshot is made of, configured by the template.
    const fresh = await FirecrackerApi.start({ version: firecracker })
    t.teardown(() => fresh.close())
    const client = new FirecrackerClient({ socketPath: fresh.socketPath })
    await applyTemplate(client, template)
    const [balloon] = fresh.bodies('PUT /balloon')
    t.is(balloon?.['free_page_reporting'], firecracker === '1.13.1' ? undefined : reports)

    // The VM that is restored from it.
    const snapshot = { machineConfig: fresh.vm.machineConfig, balloon: fresh.vm.balloon }
    const played = { version: firecracker, snapshot, freePages }
    const restored = await Firecracker.start(t, played)
    const vm = await restored.restore({ template })
    t.is(vm.freePageReporting, reports)

    const { page, count } = freePages
    const { removeEvents, removedPages } = await vm.guest.stats()
    t.is(removeEvents > 0, reports)
    t.is(removedPages, reports ? count : 0)
    const { counts } = await vm.guest.pageStates()
    t.is(counts.removed, reports ? count : 0)
    t.is(await restored.guest.wrong(page, count, reports ? 'zeros' : 'source'), 0)
    t.is(await restored.guest.wrong(0, page, 'source'), 0)
    const after = page + count
    t.is(await restored.guest.wrong(after, restored.pages - after, 'source'), 0)
  })
}
