import { UffdError } from '../errors.js'
import { type Check, record, string } from '../validate.js'
import { argument } from '../place.js'
import { warn } from '../warn.js'

/**
 * The process that handed a guest off, as the kernel told of it when it came. What cannot be seen from
 * here is `undefined`: of a process in another pid namespace all but its user and group.
 */
export interface GuestPeer {
  /** Its process id. */
  readonly pid: number | undefined
  /** Its effective user; not known once another process has taken the guest over. */
  readonly uid: number | undefined
  /** Its effective group; likewise. */
  readonly gid: number | undefined
  /** The name of its program, at most 15 bytes, such as `firecracker`; it can give itself another. */
  readonly name: string | undefined
  /** Its cgroup, such as `/vms/vm-7`. */
  readonly cgroup: string | undefined
  /** Its root directory: that of its jail, such as `/srv/jailer/firecracker/vm-7/root`, or `/`. */
  readonly root: string | undefined
}

/** Words of one's own for a guest, by which it is found again. */
export type Tags = Readonly<Record<string, string>>

/** Gives a guest its tags, from what is known of the process that handed it off. */
export type TagsFor = (peer: GuestPeer) => Tags

export const checkTagsFor: Check<TagsFor> = (value, at) =>
  typeof value === 'function' ? (value as TagsFor) : at.expected('a function', value)

/** The tags of a guest. That they cannot be had is no reason not to serve it. */
export function tagsOf(peer: GuestPeer, tagsFor: TagsFor | undefined): Tags {
  if (tagsFor === undefined) return {}
  try {
    const at = argument('tags')
    const given = Object.entries(record(tagsFor(peer), at))
    return Object.freeze(
      Object.fromEntries(given.map(([name, tag]) => [name, string(tag, at.field(name))])),
    )
  } catch (error) {
    const code = error instanceof UffdError ? error.code : 'ERR_UFFD_INVALID_OPTION'
    warn(`A guest has no tags: ${error instanceof Error ? error.message : String(error)}`, code)
    return {}
  }
}
