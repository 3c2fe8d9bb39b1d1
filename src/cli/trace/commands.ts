import { flag, requiredText, text } from '../arguments/option.js'
import { UsageError } from '../arguments/usage-error.js'
import { command } from '../command.js'

const help = flag({ help: 'Prints this.' })

/** `uffd-rs-serve trace show FILE`: what a trace says. */
export const traceShow = command({
  name: 'trace show',
  summary: 'shows a trace',
  usage: ['trace show FILE [--json|--map]'],
  about: 'Shows what a trace amounts to, or all of it as JSON.',
  words: { names: 'FILE', least: 1, most: 1 },
  options: {
    json: flag({ help: 'All of it, one entry a line.' }),
    map: flag({ help: 'Which parts of the snapshot were touched, as a picture.' }),
    help,
  },
  run: async ({ json, map }, [file]) => {
    if (json && map) throw new UsageError('--json and --map exclude each other')
    return await (await import('./run.js')).show(file!, { json, map })
  },
})

/** `uffd-rs-serve trace check FILE`: whether a trace is whole, and of a snapshot. */
export const traceCheck = command({
  name: 'trace check',
  summary: 'checks a trace',
  usage: ['trace check FILE [--snapshot FILE]'],
  about: 'Checks that a trace is whole, and belongs to a snapshot.',
  words: { names: 'FILE', least: 1, most: 1 },
  options: {
    snapshot: text('FILE', { help: 'The snapshot it has to belong to.' }),
    help,
  },
  notes: 'Exit status: 0 if it is and does, 1 if not.',
  run: async ({ snapshot }, [file]) => await (await import('./run.js')).check(file!, snapshot),
})

/** `uffd-rs-serve trace merge FILE...`: several runs as one trace. */
export const traceMerge = command({
  name: 'trace merge',
  summary: 'makes one trace of several',
  usage: ['trace merge FILE FILE... --into FILE [--intersection]'],
  about: 'Makes one trace of several of the same snapshot, in the order of the first.',
  words: { names: 'FILE FILE...', least: 2, most: Number.POSITIVE_INFINITY },
  options: {
    into: requiredText('FILE', { help: 'The file to write.' }),
    intersection: flag({
      help: 'Keeps only pages that every run needed, not those of any.',
    }),
    help,
  },
  run: async ({ into, intersection }, files) => {
    const { merge } = await import('./run.js')
    return await merge(files, into, intersection ? 'intersection' : 'union')
  },
})
