// How programs end: each of these is a process of its own, that has to end by itself.
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import { fileURLToPath } from 'node:url'
import test, { type ExecutionContext } from 'ava'
import { deadlineMs } from '../support/guest.js'
import { snapshotFile, temporaryDirectory } from '../support/stage.js'

const dist = (file: string) => fileURLToPath(new URL(`../../dist/${file}`, import.meta.url))

/** What the scripts share: a server with one guest, which has touched a page. */
const prelude = `
const { spawn } = require('node:child_process')
const { once } = require('node:events')
const { listen } = require(${JSON.stringify(dist('cjs/index.cjs'))})
const [socket, snapshot] = process.env.UFFD_TEST.split(':')
async function serve(options) {
  const server = await listen({ socket, snapshot, ...options })
  const child = spawn(process.execPath, [
    ${JSON.stringify(dist('guest-program.js'))}, '--socket', socket, '--pages', '64',
  ], { stdio: ['pipe', 'pipe', 'inherit'] })
  const guest = await server.accept()
  child.stdin.write('{"id":1,"op":"touch","page":0}\\n')
  let output = ''
  for await (const chunk of child.stdout) {
    output += chunk
    if (output.includes('"reply"')) break
  }
  child.unref()
  return { server, guest, child }
}
`

interface Ending {
  readonly code: number | null
  readonly signal: string | null
  readonly stdout: string
  readonly stderr: string
  readonly socket: string
}

async function run(t: ExecutionContext, script: string): Promise<Ending> {
  t.timeout(deadlineMs)
  const socket = join(temporaryDirectory(t), 's')
  const child = spawn(process.execPath, ['--expose-gc', '-e', `${prelude}\n${script}`], {
    env: { ...process.env, UFFD_TEST: `${socket}:${snapshotFile(t, 64)}` },
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  t.teardown(() => child.kill('SIGKILL'))
  const ended = once(child, 'exit') as Promise<[number | null, string | null]>
  const [stdout, stderr, [code, signal]] = await Promise.all([
    text(child.stdout),
    text(child.stderr),
    ended,
  ])
  return { code, signal, stdout: stdout.trim(), stderr, socket }
}

async function ends(t: ExecutionContext, script: string, output = '', status = 0): Promise<void> {
  const { code, signal, stdout, stderr, socket } = await run(t, script)
  t.is(signal, null, stderr)
  t.is(code, status, stderr)
  t.is(stdout, output, stderr)
  t.false(existsSync(socket), 'the socket was left behind')
}

test('a process ends by itself once its server is closed and its guests have ended', async (t) => {
  await ends(
    t,
    `serve().then(async ({ server, guest, child }) => {
      await server.close()
      child.stdin.end()
      guest.on('end', ({ reason }) => console.log(reason))
    })`,
    'guest-exited',
  )
})

test('process.exit with a server open, a guest running and commands under way', async (t) => {
  await ends(
    t,
    `serve({ statsIntervalMs: 5 }).then(({ guest, child }) => {
      guest.on('stats', () => {
        void guest.prefault('all')
        void guest.pageStates()
        child.kill('SIGKILL')
        process.exit(7)
      })
      guest.on('trace', () => {})
    })`,
    '',
    7,
  )
})

test('an exception nobody catches ends the process as ever', async (t) => {
  const { code, stderr, socket } = await run(
    t,
    `serve().then(({ child }) => { child.kill('SIGKILL'); throw new Error('on purpose') })`,
  )
  t.is(code, 1)
  t.regex(stderr, /on purpose/)
  t.false(existsSync(socket))
})

test('an unreferenced server and its guest do not keep the process alive', async (t) => {
  await ends(
    t,
    `serve().then(({ server, child }) => {
      server.unref()
      process.on('exit', () => { console.log('exit'); child.kill('SIGKILL') })
      child.stdin.destroy(); child.stdout.destroy()
    })`,
    'exit',
  )
})

test('a command is waited for even if the server is unreferenced', async (t) => {
  await ends(
    t,
    `serve().then(async ({ server, guest, child }) => {
      // Closing its input would end the guest, maybe before the answer.
      for (const handle of [server, child, child.stdin, child.stdout]) handle.unref()
      console.log((await guest.prefault('all')).requested)
      process.on('exit', () => child.kill('SIGKILL'))
    })`,
    '64',
  )
})

test('a guest that nobody holds is served to its end', async (t) => {
  await ends(
    t,
    `(async () => {
      const child = await serve().then(({ server, child }) => {
        void server.close()
        child.ref()
        return child
      })
      for (let round = 0; round < 20; round++) {
        await new Promise(setImmediate)
        gc()
      }
      child.stdin.write('{"id":2,"op":"touch","page":1,"count":63}\\n{"id":3,"op":"exit"}\\n')
      await once(child, 'exit')
      console.log('served')
    })()`,
    'served',
  )
})

test('a listener that throws does not end the process', async (t) => {
  const { code, stdout, stderr } = await run(
    t,
    `serve({ statsIntervalMs: 5 }).then(async ({ server, guest }) => {
      let told = 0
      guest.on('stats', () => { told++; throw new Error('on purpose') })
      guest.on('stats', () => { throw Object.create(null) })
      while (told < 3) await once(guest, 'stats')
      await server.stop()
      console.log('stopped')
    })`,
  )
  t.is(code, 0, stderr)
  t.is(stdout, 'stopped')
  t.regex(stderr, /UffdWarning: A listener of the event "stats" threw: Error: on purpose/)
  t.regex(
    stderr,
    /UffdWarning: A listener of the event "stats" threw: a value that cannot be shown/,
  )
})

const worker = (body: string) => `
const { Worker } = require('node:worker_threads')
const worker = new Worker(${JSON.stringify(`${prelude}
const { parentPort } = require('node:worker_threads')
${body}`)}, { eval: true })
worker.on('error', (error) => { console.error(error); process.exitCode = 3 })
`

test('a worker thread serves, and ends when it is done', async (t) => {
  await ends(
    t,
    `${worker(`serve().then(async ({ server }) => {
      await server.stop()
      parentPort.postMessage('stopped')
    })`)}
    worker.on('message', (message) => console.log(message))
    worker.on('exit', (code) => console.log(code))`,
    'stopped\n0',
  )
})

test('a worker thread can be terminated with a guest running', async (t) => {
  await ends(
    t,
    `${worker(`serve().then(({ guest, child }) => {
      guest.on('stats', () => {})
      void guest.prefault('all')
      parentPort.postMessage(child.pid)
    })`)}
    worker.once('message', async (pid) => {
      await worker.terminate()
      process.kill(pid, 'SIGKILL')
      // The name is free, and another environment of the same process can serve.
      const { server, guest, child } = await serve()
      child.stdin.end()
      console.log((await guest.ended).reason)
      await server.close()
    })`,
    'guest-exited',
  )
})

test('workers that are terminated while they start leave nothing behind', async (t) => {
  await ends(
    t,
    `const { Worker } = require('node:worker_threads')
    const code = \`const { listen } = require(${JSON.stringify(dist('cjs/index.cjs'))})
      const [socket, snapshot] = process.env.UFFD_TEST.split(':')
      require('node:worker_threads').parentPort.postMessage('up')
      void listen({ socket, snapshot }).catch(() => {})\`
    ;(async () => {
      for (let round = 0; round < 5; round++) {
        const worker = new Worker(code, { eval: true })
        await once(worker, 'message')
        await worker.terminate()
      }
      // What was starting goes by itself, and the worker does not wait for it.
      for (;;) {
        try {
          await (await listen({ socket, snapshot })).close()
          break
        } catch (error) {
          if (error.code !== 'ERR_UFFD_SOCKET_IN_USE') throw error
          await new Promise(setImmediate)
        }
      }
      console.log('free')
    })()`,
    'free',
  )
})

test('a worker that is terminated while a socket is bound for it leaves none', async (t) => {
  const folder = temporaryDirectory(t)
  await ends(
    t,
    `const { Worker } = require('node:worker_threads')
    const { existsSync, readdirSync, readFileSync, readlinkSync } = require('node:fs')
    const folder = ${JSON.stringify(folder)}
    const code = \`const { listen } = require(${JSON.stringify(dist('cjs/index.cjs'))})
      const [socket, snapshot] = process.env.UFFD_TEST.split(':')
      listen({ socket, snapshot }).then((server) => server.http('unix:${folder}/http'))\`
    const isOpen = () => readdirSync('/proc/self/fd').some((fd) => {
      try { return readlinkSync('/proc/self/fd/' + fd) === folder } catch { return false }
    })
    // Whoever binds waits for the lock of the directory first.
    const holder = spawn('flock', [folder, 'sh', '-c', 'echo; exec cat'], { stdio: ['pipe', 'pipe', 2] })
    ;(async () => {
      await once(holder.stdout, 'data')
      const worker = new Worker(code, { eval: true })
      while (!isOpen()) await new Promise(setImmediate)
      await worker.terminate()
      holder.stdin.end()
      const isBound = () => readFileSync('/proc/net/unix', 'utf8').includes(folder + '/http')
      while (isBound() || existsSync(folder + '/http')) await new Promise(setImmediate)
      console.log('free')
    })()`,
    'free',
  )
})

test('the package can be required', async (t) => {
  await ends(
    t,
    `const uffd = require(${JSON.stringify(dist('cjs/index.cjs'))})
    console.log(typeof uffd.listen, typeof uffd.Trace.load, uffd.UffdError.name)`,
    'function function UffdError',
  )
})
