import type { Facts } from './facts.js'
import type { Finding } from './finding.js'

interface Feature {
  readonly name: string
  readonly bit: bigint
  readonly since: string
  /** What cannot be done without it. */
  readonly lost: string
  /** Without it no guest can be served. */
  readonly needed?: true
}

/** The features of userfaultfd that something here depends on, as linux/userfaultfd.h has them. */
const features: readonly Feature[] = [
  {
    name: 'EVENT_REMOVE',
    bit: 1n << 3n,
    since: '4.11',
    lost: 'Firecracker 1.12 and later asks for it and is refused',
    needed: true,
  },
  {
    name: 'MISSING_HUGETLBFS',
    bit: 1n << 4n,
    since: '4.11',
    lost: 'guests on huge pages of 2 MiB',
  },
  {
    name: 'PAGEFAULT_FLAG_WP',
    bit: 1n << 0n,
    since: '5.7',
    lost: 'dirty tracking of guests on 4 KiB pages',
  },
  {
    name: 'WP_HUGETLBFS_SHMEM',
    bit: 1n << 12n,
    since: '5.19',
    lost: 'dirty tracking of guests on huge pages',
  },
  {
    name: 'POISON',
    bit: 1n << 14n,
    since: '6.6',
    lost: 'poisoning a page that cannot be had: use --on-unservable kill or fail',
  },
  {
    name: 'WP_ASYNC',
    bit: 1n << 15n,
    since: '6.7',
    lost: 'dirty tracking by the kernel, for VMMs that ask for it',
  },
]

/** What the kernel offers of what is used. */
export function featureFindings({ host }: Facts): Finding[] {
  const { features: offered } = host
  if (offered === undefined) return []
  return features.map((feature) => finding(feature, (offered & feature.bit) !== 0n))
}

function finding({ name, since, lost, needed }: Feature, isOffered: boolean): Finding {
  const about = { id: `feature-${name}`, title: `Feature ${name}` }
  if (isOffered) return { ...about, verdict: 'good', found: 'offered' }
  const change = `Linux ${since} or later on this architecture`
  return { ...about, verdict: needed ? 'bad' : 'limited', found: 'not offered', lost, change }
}
