import { flag } from '../arguments/option.js'
import { command } from '../command.js'

/** `uffd-rs-serve demo`: what the package does, shown on a guest of its own. */
export const demo = command({
  name: 'demo',
  summary: 'shows what this does on a guest of its own',
  usage: ['demo'],
  about: `Makes a snapshot, serves it to a guest process that hands off like Firecracker, has memory
given back and read again, and checks every byte. A second guest is served with the trace of the
first. Needs neither root nor a VM, and leaves nothing behind but a report about the first run.`,
  options: { help: flag({ help: 'Prints this.' }) },
  notes: 'Exit status: 0 if every byte was right.',
  run: async () => await (await import('./demo.js')).demo(),
})
