import { command } from '../command.js'
import { serveOptions } from './options.js'

/** `uffd-rs-serve --socket PATH --snapshot FILE`: serves guests of one snapshot. */
export const serve = command({
  name: '',
  summary: 'serves guests of a snapshot',
  usage: ['--socket PATH --snapshot FILE [options]', '--demo', 'COMMAND --help'],
  about: 'Serves the memory of Firecracker microVMs restored from a snapshot.',
  options: serveOptions,
  notes: `Commands:
  restore                   Restores a microVM and serves its memory
  status, dump, stop        Ask a running server how it does, for all it knows, to end
  configure                 Sets a microVM up as its template says, before its boot
  doctor                    What this host can do, and what would have to change
  demo                      The same as --demo
  trace show|check|merge    Looks at traces and joins them
  report                    Makes a page of a trace and statistics
  completion SHELL          Makes bash, zsh or fish complete this command
  help [COMMAND]            The help of a command

SIGTERM and SIGINT end it in good order; a second one at once. A guest that still runs then
waits at the next page it misses: end or pause it first.

Exit status: 0 if no guest failed or was refused and every trace and report was saved, 1
otherwise, 2 if the command line is wrong.`,
  run: async (values) => await (await import('./serve.js')).serveGuests(values),
})
