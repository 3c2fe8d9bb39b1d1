// node dist/main.js DIRECTORY [COUNT]: resumes clones of DIRECTORY/mem and DIRECTORY/vmstate.
import { join, resolve } from 'node:path'
import { setTimeout as wait } from 'node:timers/promises'
import { Clones } from './clones.js'
import { firecracker } from './firecracker.js'

const [directory, count = '4'] = process.argv.slice(2)
if (directory === undefined) throw new Error('Which directory? It has to hold mem and vmstate')
const at = (name: string) => join(resolve(directory), name)

const clones = await Clones.open({
  snapshot: at('mem'),
  socket: at('uffd.sock'),
  trace: at('first-touches.trace'),
  startVm: firecracker(at('vmstate'), resolve(directory)),
})
try {
  const start = performance.now()
  for (const { vm, prefetched } of await clones.resume(Number(count))) {
    console.log(`pid ${vm.pid}: ${prefetched?.installed ?? 0} pages prefetched`)
  }
  console.log(`${count} clones run after ${Math.round(performance.now() - start)} ms`)
  await wait(5000)
  console.log(`${await clones.saveTrace()} pages in the trace`)
} finally {
  await clones.close()
}
