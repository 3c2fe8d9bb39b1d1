import { flag, negatable } from '../arguments/option.js'
import { command } from '../command.js'

/** `uffd-rs-serve doctor`: what this host can do. */
export const doctor = command({
  name: 'doctor',
  summary: 'says what this host can do',
  usage: ['doctor [--json]'],
  about: `Says what this host can do for this user, what is lost without the rest, and what would
have to change. The VMM makes the userfaultfd, not uffd-rs-serve: if Firecracker runs as another
user, ask as that user.`,
  options: {
    json: negatable({
      help: 'JSON lines instead of text.',
      default: 'text on a terminal, JSON lines otherwise',
    }),
    help: flag({ help: 'Prints this.' }),
  },
  notes: 'Exit status: 0 if guests can be served, 1 if not.',
  run: async ({ json }) => await (await import('./run.js')).doctor(json ?? !process.stdout.isTTY),
})
