// How the files of the native part are called: `uffd-rs.linux-x64-musl.node` is the addon of that
// platform, and `uffd-rs-guardian.linux-x64-musl` beside it is the program of the guardian.

const architectures = { x86_64: 'x64', aarch64: 'arm64' }

/** The addon for a target such as `x86_64-unknown-linux-musl`, or of that name already. */
export function addonOf(target) {
  if (target.endsWith('.node')) return target
  const [arch, , system, libc] = target.split('-')
  return `uffd-rs.${system}-${architectures[arch]}-${libc}.node`
}

/** The program beside an addon. The addon itself looks for it there. */
export const programOf = (addon) =>
  addon.replace(/^uffd-rs\./, 'uffd-rs-guardian.').replace(/\.node$/, '')
