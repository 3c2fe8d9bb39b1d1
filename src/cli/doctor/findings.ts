import { bytes, several, whole } from '../../numbers.js'
import type { Facts } from './facts.js'
import { featureFindings } from './features.js'
import type { Finding } from './finding.js'

/** Descriptors that a server needs besides its guests, those of Node.js included. */
const descriptorsOfServer = 40
/** Descriptors that a guest needs: a test counts them. */
export const descriptorsOfGuest = 7

const hugePage = 2 * 1024 * 1024

/** Judges what was found. Asks the host nothing, so that every host can be put before it. */
export function findings(facts: Facts): Finding[] {
  return [
    kernelFaults(facts),
    userFaults(facts),
    ...featureFindings(facts),
    process(facts),
    memory(facts),
    hugePages(facts),
    capacity(facts),
    takingOver(facts),
    stateDirectory(facts),
    guardian(facts),
    serviceManager(facts),
    cores(facts),
    kvm(facts),
    firecracker(facts),
  ]
}

/** Whether guests can be served, whoever starts them. */
export const canServe = (all: readonly Finding[]): boolean =>
  all.every(({ verdict }) => verdict !== 'bad')

function kernelFaults({ host, uid, unprivilegedUserfaultfd }: Facts): Finding {
  const about = { id: 'userfaultfd', title: 'A userfaultfd for KVM' }
  const { systemCall, device, userModeOnly } = host
  const found =
    `userfaultfd(2) ${systemCall}, /dev/userfaultfd ${device}, ` +
    `vm.unprivileged_userfaultfd=${unprivilegedUserfaultfd ?? 'unreadable'}`
  if ([systemCall, device, userModeOnly].every((access) => access === 'absent')) {
    const change = 'A kernel with CONFIG_USERFAULTFD'
    return { ...about, verdict: 'bad', found, lost: 'everything', change }
  }
  // Firecracker opens the device where there is one, and only then makes the system call.
  if (device === 'granted' || (device === 'absent' && systemCall === 'granted')) {
    return { ...about, verdict: 'good', found }
  }
  const lost = 'a Firecracker that is started by this user cannot be restored by page faults'
  const change =
    device === 'denied'
      ? `Give user ${uid} read and write access to /dev/userfaultfd (chgrp and chmod 660, or setfacl)`
      : 'Run Firecracker with CAP_SYS_PTRACE, or set vm.unprivileged_userfaultfd=1; in a ' +
        'container, have its seccomp profile allow userfaultfd'
  return { ...about, verdict: 'limited', found, lost, change }
}

function userFaults({ host }: Facts): Finding {
  const about = { id: 'user-mode-only', title: 'A userfaultfd without privilege' }
  const found = `UFFD_USER_MODE_ONLY ${host.userModeOnly}`
  if (host.userModeOnly === 'granted') return { ...about, verdict: 'good', found }
  const lost = 'the demo and tests for users who are not root'
  const change = 'Linux 5.11 or later; in a container, a seccomp profile that allows userfaultfd'
  return { ...about, verdict: 'limited', found, lost, change }
}

function process({ host }: Facts): Finding {
  const about = { id: 'pidfd', title: "Seeing a guest's end" }
  const found = `pidfd ${host.pidfd}, SO_PEERPIDFD ${host.peerPidfd}`
  if (host.pidfd !== 'granted') {
    const lost = 'a guest that dies cannot be told from one that is silent'
    return { ...about, verdict: 'bad', found, lost, change: 'Linux 5.3 or later' }
  }
  if (host.peerPidfd === 'granted') return { ...about, verdict: 'good', found }
  const lost = 'certainty, if a guest dies during its handoff and its number is given away'
  return { ...about, verdict: 'limited', found, lost, change: 'Linux 6.5 or later' }
}

function memory({ host }: Facts): Finding {
  const about = { id: 'memfd', title: 'Memory for page states' }
  const found = `memfd ${host.memfd}`
  if (host.memfd === 'granted') return { ...about, verdict: 'good', found }
  const change = 'Allow memfd_create, for example in the seccomp profile of the container'
  return { ...about, verdict: 'bad', found, lost: 'everything', change }
}

function hugePages({ hugePages: pool }: Facts): Finding {
  const about = { id: 'huge-pages', title: 'Huge pages of 2 MiB' }
  if (pool !== undefined && pool.total > 0) {
    const { total, free } = pool
    const found = `${whole(free)} of ${whole(total)} free (${bytes(free * hugePage)})`
    return { ...about, verdict: 'good', found }
  }
  const found = pool === undefined ? 'not known to the kernel' : 'the pool is empty'
  const change = 'sysctl vm.nr_hugepages=N, one page for each 2 MiB of each such guest'
  return { ...about, verdict: 'limited', found, lost: 'guests on huge pages', change }
}

function capacity({ openFiles: { soft, hard } }: Facts): Finding {
  const about = { id: 'open-files', title: 'Guests at once' }
  const guests = Math.max(0, Math.floor((soft - descriptorsOfServer) / descriptorsOfGuest))
  const room = several(guests, 'guest')
  const found = `${several(soft, 'open file')}: room for some ${room}`
  if (guests >= 500) return { ...about, verdict: 'good', found }
  const lost = `more than ${room} in one process`
  const raise = soft < hard ? `ulimit -n ${hard}` : 'Raise LimitNOFILE of the service'
  return { ...about, verdict: guests === 0 ? 'bad' : 'limited', found, lost, change: raise }
}

function takingOver({ tracing: { child, capable, scope } }: Facts): Finding {
  const about = { id: 'taking-over', title: 'Taking over guests that were left' }
  const found =
    `pidfd_getfd of a child ${child}, CAP_SYS_PTRACE ${capable ? 'there' : 'missing'}, ` +
    `kernel.yama.ptrace_scope ${scope ?? 'absent'}`
  const flaw = (lost: string, change: string) =>
    ({ ...about, verdict: 'limited', found, lost, change }) as const
  const nobody = 'taking over guests whose server is gone: --state-dir is of no use'
  if (child === 'absent') return flaw(nobody, 'Linux 5.6 or later')
  if (scope === 3) return flaw(nobody, 'kernel.yama.ptrace_scope below 3, which takes a reboot')
  if (child !== 'granted') {
    return flaw(nobody, 'In a container, have its seccomp profile allow pidfd_getfd')
  }
  if (capable) return { ...about, verdict: 'good', found }
  const change =
    'CAP_SYS_PTRACE for the server (AmbientCapabilities= of its unit), --guardian, or ' +
    'FileDescriptorStoreMax= of its unit, which have a copy kept of what is needed'
  return (scope ?? 0) > 0
    ? flaw(nobody, `${change}, or sysctl kernel.yama.ptrace_scope=0`)
    : flaw("taking over guests whose VMM runs as another user, such as a jailer's", change)
}

/** A ledger of a large guest: one byte a page of 4 KiB for 64 GiB. */
const roomForLedgers = 16 * 1024 * 1024

function stateDirectory({ places, uid }: Facts): Finding {
  const about = { id: 'state-dir', title: 'A place for --state-dir' }
  const fits = places.filter(
    ({ isTmpfs, access, freeBytes }) =>
      isTmpfs && access === 'granted' && freeBytes >= roomForLedgers,
  )
  const found = places
    .map(({ path, isTmpfs, access, freeBytes }) =>
      access === 'granted'
        ? `${path} ${isTmpfs ? 'a tmpfs' : 'on a disk'}, ${bytes(freeBytes)} free`
        : `${path} ${access}`,
    )
    .join('; ')
  if (fits.length > 0) return { ...about, verdict: 'good', found }
  const change =
    `A tmpfs that user ${uid} may write to: RuntimeDirectory= of a unit, or mount -t tmpfs -o ` +
    `mode=0700,uid=${uid} tmpfs DIR`
  return { ...about, verdict: 'limited', found, lost: 'guests that outlive their server', change }
}

function guardian({ guardian: { program, access } }: Facts): Finding {
  const about = { id: 'guardian', title: 'A guardian for guests' }
  const found = `${program ?? 'its program'} ${access}`
  if (access === 'granted') return { ...about, verdict: 'good', found }
  const change =
    'Install the package whole, without --omit=optional; in a checkout of the sources, npm run ' +
    'build:native'
  const lost = '--guardian: guests wait while no server runs'
  return { ...about, verdict: 'limited', found, lost, change }
}

/** The first that keeps descriptors of a service which is stopped, and says how many. */
const systemdThatKeeps = 254

function serviceManager({ systemd: { isThere, version, isTold, storeMax } }: Facts): Finding {
  const about = { id: 'service-manager', title: 'A service manager that keeps guests' }
  const named = `systemd ${version ?? 'of unknown version'}`
  const flaw = (found: string, lost: string, change: string) =>
    ({ ...about, verdict: 'limited', found, lost, change }) as const
  if (!isThere && !isTold) {
    return flaw(
      'systemd is not the init of this host',
      'userfaultfds and sockets that are kept while no server runs',
      '--guardian, which keeps userfaultfds as well',
    )
  }
  if (version !== undefined && version < systemdThatKeeps) {
    const lost = 'what it keeps of guests, once their service is stopped and not restarted'
    return flaw(named, lost, `systemd ${systemdThatKeeps} or later, or restart only`)
  }
  if (!isTold) return { ...about, verdict: 'good', found: `${named}, which did not start this` }
  if (storeMax !== undefined) {
    const found = `${named} keeps up to ${several(storeMax, 'descriptor')} of this service`
    return { ...about, verdict: 'good', found }
  }
  return flaw(
    `${named} keeps no descriptors of this service`,
    'guests whose VMM may not be traced, when their server is gone',
    'FileDescriptorStoreMax= of the unit, one for each guest',
  )
}

function cores({ cores: count }: Facts): Finding {
  const about = { id: 'cores', title: 'Processors' }
  const found = several(count, 'processor')
  if (count > 1) return { ...about, verdict: 'good', found }
  const lost = 'short waits: a guest could not run while its fault loop tries to read'
  return { ...about, verdict: 'limited', found, lost, change: 'A second processor' }
}

function kvm({ kvm: access, uid }: Facts): Finding {
  const about = { id: 'kvm', title: '/dev/kvm' }
  if (access === 'granted') return { ...about, verdict: 'good', found: access }
  const change =
    access === 'absent'
      ? 'Load the kvm module, on hardware or a VM with virtualisation'
      : `Give user ${uid} read and write access to /dev/kvm, for example by its group`
  return { ...about, verdict: 'limited', found: access, lost: 'Firecracker itself', change }
}

function firecracker({ firecracker: version }: Facts): Finding {
  const about = { id: 'firecracker', title: 'Firecracker' }
  return { ...about, verdict: 'good', found: version ?? 'not in the PATH, which does not matter' }
}
