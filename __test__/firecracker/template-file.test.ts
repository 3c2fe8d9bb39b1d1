import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test from 'ava'
import { readTemplate } from '../../src/index.js'

const directory = await mkdtemp(join(tmpdir(), 'uffd-template-'))
test.after.always(() => rm(directory, { recursive: true }))

test('reads a file, with paths relative to it', async (t) => {
  const file = join(directory, 'good.json')
  await writeFile(
    file,
    JSON.stringify({
      firecracker: '1.16.1',
      memSizeMib: 256,
      snapshot: { statePath: 'vmstate', memoryPath: 'mem' },
    }),
  )
  const { snapshot, freePageReporting } = await readTemplate(file)
  t.true(freePageReporting)
  t.deepEqual(snapshot, {
    statePath: join(directory, 'vmstate'),
    memoryPath: join(directory, 'mem'),
  })
})

test('names a file that is not there', async (t) => {
  const file = join(directory, 'absent.json')
  const error = await t.throwsAsync(readTemplate(file), { code: 'ERR_UFFD_INVALID_TEMPLATE' })
  t.true(error.message.startsWith(`Cannot read the template ${file}: ENOENT`))
})

test('names a file that is not JSON', async (t) => {
  const file = join(directory, 'broken.json')
  await writeFile(file, '{ "firecracker": ')
  const error = await t.throwsAsync(readTemplate(file), { code: 'ERR_UFFD_INVALID_TEMPLATE' })
  t.true(error.message.startsWith(`The template ${file} is not JSON: `))
})

test('names a file with a mistake, and the field', async (t) => {
  const file = join(directory, 'mistake.json')
  await writeFile(file, '{ "firecracker": "1.16.1", "memSizeMib": 256, "baloon": {} }')
  const error = await t.throwsAsync<Error & { field: string }>(readTemplate(file), {
    code: 'ERR_UFFD_INVALID_TEMPLATE',
  })
  t.is(error.field, 'baloon')
  t.true(
    error.message.startsWith(`${file}: Unknown template field "baloon". Did you mean "balloon"?`),
  )
})
