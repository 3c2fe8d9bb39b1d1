import { execFileSync } from 'node:child_process'
import { mkdtemp, rm, truncate, writeFile } from 'node:fs/promises'
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
  t.true(error.message.startsWith(`Cannot read the template ${file}: no such file`))
})

test('a pipe is refused, not waited for', async (t) => {
  const file = join(directory, 'pipe')
  execFileSync('mkfifo', [file])
  await t.throwsAsync(readTemplate(file), {
    code: 'ERR_UFFD_INVALID_TEMPLATE',
    message: `Cannot read the template ${file}: it is not a regular file`,
  })
})

test('a file too large to be a template is not read', async (t) => {
  const file = join(directory, 'large.json')
  await writeFile(file, '')
  await truncate(file, 2 ** 20 + 1)
  await t.throwsAsync(readTemplate(file), {
    code: 'ERR_UFFD_INVALID_TEMPLATE',
    message: `Cannot read the template ${file}: it has 1048577 bytes, and at most 1048576 are read`,
  })
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
