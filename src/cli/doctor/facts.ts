import { execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { constants } from 'node:fs'
import { access, readFile, stat, statfs } from 'node:fs/promises'
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
  /** What the kernel says to whoever wants a descriptor of another process. */
  readonly tracing: {
    /** Tried on a child of this process. */
    readonly child: Access
    /** Whether this process has CAP_SYS_PTRACE. */
    readonly capable: boolean
    /** `kernel.yama.ptrace_scope`; `undefined` where there is no Yama. */
    readonly scope: number | undefined
  }
  /** Places where a state directory could be, those first that suit best. */
  readonly places: readonly Place[]
  /** The program of the guardian, and whether this user may run it. */
  readonly guardian: { readonly program: string | undefined; readonly access: Access }
  readonly systemd: {
    /** Whether it is the init of this host. */
    readonly isThere: boolean
    readonly version: number | undefined
    /** Whether it wants to be told what becomes of this process (`NOTIFY_SOCKET`). */
    readonly isTold: boolean
    /** How many descriptors it says to keep of this process (`FDSTORE`). */
    readonly storeMax: number | undefined
  }
  readonly cores: number
  readonly kvm: Access
  /** What `firecracker --version` says, if it is in the PATH. */
  readonly firecracker: string | undefined
}

/** A directory in which a state directory could be made. */
export interface Place {
  readonly path: string
  /** What is in it is in memory. */
  readonly isTmpfs: boolean
  /** Whether this user may make a directory there. */
  readonly access: Access
  readonly freeBytes: number
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
    tracing: await tracing(),
    places: await places(),
    guardian: await guardian(),
    systemd: await systemd(),
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

const capSysPtrace = 1n << 19n

async function tracing(): Promise<Facts['tracing']> {
  const status = (await text('/proc/self/status')) ?? ''
  const [, capabilities = '0'] = /^CapEff:\s+([0-9a-f]+)$/m.exec(status) ?? []
  return {
    child: await accessToChild(),
    capable: (BigInt(`0x${capabilities}`) & capSysPtrace) !== 0n,
    scope: await number('/proc/sys/kernel/yama/ptrace_scope'),
  }
}

/** Asks for the standard input of a child that was started as a VMM is: by exec. */
async function accessToChild(): Promise<Access> {
  const child = spawn(process.execPath, ['-e', 'process.stdin.resume()'], {
    stdio: ['pipe', 'ignore', 'ignore'],
  })
  try {
    await once(child, 'spawn')
    return native.probeDescriptor(child.pid!, 0)
  } catch {
    return 'refused'
  } finally {
    child.kill('SIGKILL')
  }
}

async function guardian(): Promise<Facts['guardian']> {
  const program = native.guardianProgram() ?? undefined
  if (program === undefined) return { program, access: 'absent' }
  return { program, access: await accessTo(program, constants.X_OK) }
}

async function systemd(): Promise<Facts['systemd']> {
  const [, version] = /^systemd (\d+)/.exec((await output('systemctl', '--version')) ?? '') ?? []
  const { NOTIFY_SOCKET: notify, FDSTORE: store } = process.env
  return {
    // What sd_booted(3) asks.
    isThere: (await accessTo('/run/systemd/system', constants.F_OK)) === 'granted',
    version: version === undefined ? undefined : Number(version),
    isTold: notify !== undefined,
    storeMax: store === undefined ? undefined : Number(store),
  }
}

const tmpfs = 0x01_02_19_94

async function places(): Promise<Place[]> {
  const paths = ['/run', process.env['XDG_RUNTIME_DIR'] ?? '', '/dev/shm'].filter(Boolean)
  const all = paths.map(async (path) => {
    const about = await statfs(path).catch(() => undefined)
    return {
      path,
      isTmpfs: about?.type === tmpfs,
      access: await accessTo(path, constants.W_OK | constants.X_OK),
      freeBytes: about === undefined ? 0 : about.bavail * about.bsize,
    }
  })
  return await Promise.all(all)
}

async function accessTo(path: string, how = constants.R_OK | constants.W_OK): Promise<Access> {
  try {
    await stat(path)
    await access(path, how)
    return 'granted'
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'ENOENT' ? 'absent' : 'denied'
  }
}

const firecracker = async (): Promise<string | undefined> =>
  (await output('firecracker', '--version'))?.split('\n')[0]

/** What a program of the PATH writes, if there is one. */
async function output(program: string, ...args: string[]): Promise<string | undefined> {
  try {
    return (await promisify(execFile)(program, args, { timeout: 5000 })).stdout
  } catch {
    return undefined
  }
}
