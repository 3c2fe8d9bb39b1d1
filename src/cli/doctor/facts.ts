import { execFile } from 'node:child_process'
import { constants } from 'node:fs'
import { access, readFile, stat } from 'node:fs/promises'
import { availableParallelism, release } from 'node:os'
import { promisify } from 'node:util'
import native, { type Access, type Host } from '#native'

/** What was found out about this host, before anybody judges it. */
export interface Facts {
  readonly kernel: string
  readonly uid: number
  /** What the kernel answered, tried by this process. */
  readonly host: Host
  /** `vm.unprivileged_userfaultfd`, if it can be read. */
  readonly unprivilegedUserfaultfd: number | undefined
  /** Pages of 2 MiB; `undefined` where the kernel has none. */
  readonly hugePages: { readonly total: number; readonly free: number } | undefined
  /** How many files a process may have open. */
  readonly openFiles: { readonly soft: number; readonly hard: number }
  readonly cores: number
  readonly kvm: Access
  /** What `firecracker --version` says, if it is in the PATH. */
  readonly firecracker: string | undefined
}

export async function gatherFacts(): Promise<Facts> {
  return {
    kernel: release(),
    // Not `userInfo()`, which throws where the user has no name, as in many containers.
    uid: process.getuid!(),
    host: native.probeHost(),
    unprivilegedUserfaultfd: await number('/proc/sys/vm/unprivileged_userfaultfd'),
    hugePages: await hugePages(),
    openFiles: await openFiles(),
    cores: availableParallelism(),
    kvm: await accessTo('/dev/kvm'),
    firecracker: await firecracker(),
  }
}

const text = async (path: string): Promise<string | undefined> =>
  await readFile(path, 'utf8').catch(() => undefined)

async function number(path: string): Promise<number | undefined> {
  const found = await text(path)
  return found === undefined ? undefined : Number(found)
}

async function hugePages(): Promise<Facts['hugePages']> {
  const pool = '/sys/kernel/mm/hugepages/hugepages-2048kB'
  const [total, free] = [
    await number(`${pool}/nr_hugepages`),
    await number(`${pool}/free_hugepages`),
  ]
  return total === undefined || free === undefined ? undefined : { total, free }
}

async function openFiles(): Promise<Facts['openFiles']> {
  const limits = (await text('/proc/self/limits')) ?? ''
  const [, soft, hard] = /^Max open files\s+(\w+)\s+(\w+)/m.exec(limits) ?? []
  return { soft: limit(soft), hard: limit(hard) }
}

const limit = (word = '0') => (word === 'unlimited' ? Number.POSITIVE_INFINITY : Number(word))

async function accessTo(path: string): Promise<Access> {
  try {
    await stat(path)
    await access(path, constants.R_OK | constants.W_OK)
    return 'granted'
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'ENOENT' ? 'absent' : 'denied'
  }
}

async function firecracker(): Promise<string | undefined> {
  try {
    const { stdout } = await promisify(execFile)('firecracker', ['--version'], { timeout: 5000 })
    return stdout.split('\n')[0]
  } catch {
    return undefined
  }
}
