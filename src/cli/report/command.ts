import { flag, requiredText, text } from '../arguments/option.js'
import { command } from '../command.js'

/** `uffd-rs-serve report TRACE --into FILE.html`: a page about a run. */
export const report = command({
  name: 'report',
  summary: 'makes a page of a trace and statistics',
  usage: ['report TRACE --into FILE.html [--stats FILE] [--prefetch TRACE]'],
  about: `Makes a page of what a guest needed first: where and when, how long its faults took, and what
to do about it. A run that is served with --report makes one by itself, with the memory at its end.`,
  words: { names: 'TRACE', least: 1, most: 1 },
  options: {
    into: requiredText('FILE.html', { help: 'The file to write.' }),
    stats: text('FILE', {
      help: "The command's output in JSON lines: the last guest that ended there\nis the one whose trace it is.",
    }),
    prefetch: text('TRACE', {
      help: 'Another trace: what it would have foreseen of this run, missed, and\nfetched for nothing.',
    }),
    help: flag({ help: 'Prints this.' }),
  },
  run: async (values, [trace]) => await (await import('./run.js')).report(trace!, values),
})
