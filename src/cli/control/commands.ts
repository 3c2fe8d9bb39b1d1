import { flag, text } from '../arguments/option.js'
import { command } from '../command.js'
import { controlPath, help, json, timeout, whichServer } from './options.js'

const which = '(--socket PATH | --control PATH)'
const answerMs = 10_000
const endMs = 60_000

/** `uffd-rs-serve status`: how a server and its guests do. */
export const status = command({
  name: 'status',
  summary: 'says how a running server and its guests do',
  usage: [`status ${which} [options]`],
  about: `Asks a running server how it and its guests do. Only its user and root may ask; no guest
notices.`,
  options: { ...whichServer, json, ...timeout('How long the answer may take.', '10s'), help },
  notes: 'Exit status: 0 if the server answered, 1 if not, 2 if the command line is wrong.',
  run: async (values) => {
    const { status: ask } = await import('./status.js')
    return await ask(
      controlPath(values),
      values.timeout ?? answerMs,
      values.json ?? !process.stdout.isTTY,
    )
  },
})

/** `uffd-rs-serve dump`: everything known, for the report of a defect. */
export const dump = command({
  name: 'dump',
  summary: 'prints everything a running server knows of its guests',
  usage: [`dump ${which} [--guest ID] [options]`],
  about: `Prints as JSON everything that a running server knows of its guests: regions, pages by
state, statistics, whose memory it is, what stands in the way; and of itself: options, refusals,
guests that have ended. It has paths and process ids of this host, and nothing of any guest's
memory: look through it before you add it to a report.`,
  options: {
    ...whichServer,
    guest: text('ID', { help: 'Only this guest: its id, the beginning of it, or its process id.' }),
    ...timeout('How long the answer may take.', '10s'),
    help,
  },
  notes: 'Exit status: 0 if the server answered, 1 if not, 2 if the command line is wrong.',
  run: async (values) => {
    const { dump: ask } = await import('./dump.js')
    return await ask(controlPath(values), values.guest, values.timeout ?? answerMs)
  },
})

/** `uffd-rs-serve stop`: ends a server in good order. */
export const stop = command({
  name: 'stop',
  summary: 'stops a running server, and waits for its end',
  usage: [`stop ${which} [--hand-over] [options]`],
  about: `Ends a running server in good order, as SIGTERM does, waits until its process has ended, and
says what became of its guests. A guest that is stopped while it runs waits at the next page it
misses: end or pause it first.`,
  options: {
    ...whichServer,
    'hand-over': flag({
      help: 'Leaves the guests in its state directory to the next server, as\nSIGUSR2 does.',
    }),
    json,
    ...timeout('How long the end may take.', '60s'),
    help,
  },
  notes: `Exit status: 0 if it ended in good order, 1 if not, or not in time, 2 if the command line is
wrong.`,
  run: async (values) => {
    const { stop: ask } = await import('./stop.js')
    return await ask(controlPath(values), {
      leavesGuests: values['hand-over'],
      timeoutMs: values.timeout ?? endMs,
      asJson: values.json ?? !process.stdout.isTTY,
    })
  },
})
