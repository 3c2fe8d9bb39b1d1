import { command } from '../command.js'
import { restoreOptions } from './options.js'

/** `uffd-rs-serve restore`: restores one microVM and serves its memory. */
export const restore = command({
  name: 'restore',
  summary: 'restores a microVM and serves its memory',
  usage: [
    'restore --api-socket PATH --snapshot-state FILE --snapshot FILE [options]',
    'restore --api-socket PATH --template FILE [options]',
  ],
  about: `Has a fresh Firecracker load a snapshot, resumes the guest, and serves its memory until it ends.`,
  options: restoreOptions,
  notes: `SIGTERM and SIGINT end it in good order; a second one at once. A guest that still runs then
waits at the next page it misses: end or pause it first.

Exit status: 0 if the guest was restored and did not fail, and all was saved, 1
otherwise, 2 if the command line is wrong.`,
  run: async (values) => await (await import('./restore.js')).restoreAndServe(values),
})
