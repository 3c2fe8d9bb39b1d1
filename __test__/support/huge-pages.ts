import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type ExecutionContext } from 'ava'

const pool = '/proc/sys/vm/nr_hugepages'
const free = '/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages'

const read = (file: string) => Number(readFileSync(file, 'utf8'))

/**
 * Makes the host's pool hold `count` free 2 MiB pages until the end of the test. There is one
 * pool: only one test at a time has any, those in Rust included, which take the same lock.
 */
export async function reserveHugePages(t: ExecutionContext, count: number): Promise<void> {
  const lock = join(tmpdir(), 'uffd-rs-huge-pages.lock')
  // The lock is let go of when its holder's input ends, however this process ends.
  const holder = spawn('flock', [lock, 'sh', '-c', 'echo; exec cat'], {
    stdio: ['pipe', 'pipe', 'inherit'],
  })
  await once(holder.stdout, 'data')
  const before = read(pool)
  t.teardown(async () => {
    writeFileSync(pool, String(before))
    holder.stdin.end()
    await once(holder, 'exit')
  })
  resize(before - read(free) + count)
}

function resize(wanted: number): void {
  for (let tries = 0; tries < 20; tries++) {
    writeFileSync(pool, String(wanted))
    if (read(pool) === wanted) return
    // Perhaps the host's memory is in pieces.
    writeFileSync('/proc/sys/vm/compact_memory', '1')
  }
  throw new Error(`the kernel gave ${read(pool)} huge pages of ${wanted}`)
}

/** How many of the host's 2 MiB pages are free. */
export const freeHugePages = () => read(free)

/** Adds so many to the pool, for as long as the caller has reserved it. */
export function giveHugePages(count: number): void {
  resize(read(pool) + count)
}
