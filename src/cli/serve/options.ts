import { duration, millisecondsOr } from '../arguments/duration.js'
import {
  choice,
  config,
  flag,
  negatable,
  type Option,
  requiredText,
  text,
  type Values,
} from '../arguments/option.js'
import { UsageError } from '../arguments/usage-error.js'
import type { Owner } from '../../index.js'
import { levels } from '../output/output.js'

/** Shows no figures, or has no control socket. */
export const off = Symbol('off')

const stats: Option<number | typeof off | undefined> = {
  takes: 'TIME|off',
  help: 'How often figures are shown.',
  default: '1s',
  read: (given) => (given === 'off' ? off : millisecondsOr('off', given)),
  absent: undefined,
}

const faultAround: Option<boolean | number | undefined> = {
  takes: 'on|off|PAGES',
  help: 'Pages filled when one is missed: as many as the access pattern\nasks for, exactly one, or at most so many.',
  default: 'on',
  read: (given) => {
    if (given === 'on' || given === 'off') return given === 'on'
    if (!/^[1-9]\d{0,8}$/.test(given)) throw new UsageError('must be on, off or a number of pages')
    return Number(given)
  },
  absent: undefined,
}

const socketOwner: Option<Owner | undefined> = {
  takes: 'UID:GID',
  help: 'Whom the socket is given to, if Firecracker runs as another user.',
  default: 'the user of this command',
  read: (given) => {
    const [, uid, gid] = /^(\d{1,10}):(\d{1,10})$/.exec(given) ?? []
    if (uid === undefined || gid === undefined) {
      throw new UsageError('must be the numbers of a user and a group, such as 123:100')
    }
    return { uid: Number(uid), gid: Number(gid) }
  },
  absent: undefined,
}

const socketMode: Option<number | undefined> = {
  takes: 'MODE',
  help: 'The permissions of the socket: who may write to it may connect.',
  default: 'what the umask leaves',
  read: (given) => {
    if (!/^0?[0-7]{3}$/.test(given)) throw new UsageError('must be octal permissions, such as 660')
    return Number.parseInt(given, 8)
  },
  absent: undefined,
}

const control: Option<string | typeof off | undefined> = {
  takes: 'PATH|off',
  help: 'Where the commands status, dump and stop reach this one: a socket\nfor its user and root.',
  default: '--socket and .control',
  read: (given) => {
    if (given === 'off') return off
    const path = given.replace(/^unix:/, '')
    if (path === '') throw new UsageError('must be a path, or off')
    return path
  },
  absent: undefined,
}

/** What commands that serve guests have in common. */
export const servingOptions = {
  'socket-owner': socketOwner,
  'socket-mode': socketMode,
  prefetch: text('TRACE', {
    help: 'Installs the pages of this trace before the guest asks for them.\nA trace of another snapshot is refused.',
  }),
  trace: text('FILE', {
    help: 'Saves which pages were needed first, whenever a guest ends: all\nguests of this run as one, and what --prefetch had.',
  }),
  report: text('FILE.html', {
    help: 'Saves what a guest did as a page, whenever one ends: its memory,\nfirst touches, latencies, what a prefetch came to.',
  }),
  stats,
  json: negatable({
    help: 'JSON lines instead of text.',
    default: 'text on a terminal, JSON lines otherwise',
  }),
  'log-level': choice(levels, { help: 'The least important of what is shown.', default: 'info' }),
  'dirty-tracking': choice(['auto', 'on', 'off'], {
    help: 'Tracks written pages: if the VMM registered for it, always or\nnever.',
    default: 'auto',
  }),
  'fault-around': faultAround,
  'on-unservable': choice(['poison', 'kill', 'fail'], {
    help: 'For a page that cannot be had: SIGBUS for whoever touches it, end\nthe guest, or leave the guest waiting and fail.',
    default: 'poison',
  }),
  'fault-deadline': duration({
    help: 'How long a fault may wait for a page that cannot be had.',
    default: '30s',
  }),
  'handoff-timeout': duration({
    help: 'How long a guest may take for its handoff.',
    default: '10s',
  }),
  release: flag({
    help: 'Installs all of each guest in the background; then it needs no\nhandler any more.',
  }),
  'state-dir': text('DIR', {
    help: 'Keeps guests in this directory, on a tmpfs: they outlive this\nprocess, and a server that is started there takes them over.',
  }),
  'state-dir-wait': flag({ help: 'Waits for another server to leave the state directory.' }),
  'hand-over': flag({
    help: 'Leaves guests in the state directory when it is told to end, as\nSIGUSR2 always does; otherwise they are stopped.',
  }),
  guardian: flag({
    help: 'A small process of its own serves the guests of --state-dir while\nno server does; they are left to it when this command is told to\nend.',
  }),
  'guardian-cgroup': text('PATH', {
    help: 'A cgroup (v2) for it, so that it is not ended with this command.',
    default: 'that of this command',
  }),
  'guardian-log': text('FILE', {
    help: 'Where it appends a line for each guest it serves or gives back.',
    default: 'nowhere',
  }),
  systemd: negatable({
    help: 'Tells the service manager when it is ready and that it is alive,\nhas it keep userfaultfds of --state-dir, and takes its socket.',
    default: 'if a service manager started it',
  }),
  'kill-on-failure': flag({ help: 'Kills a guest that can be served no longer.' }),
  control,
  collapse: flag({
    help: 'Makes transparent huge pages of memory that is all installed, in\nthe background.',
  }),
  'short-waits': negatable({
    help: 'Reads a few times before it sleeps: faults are served sooner, for\na little CPU time.',
    default: 'on',
  }),
}

/** The table of what `uffd-rs-serve` takes; also its help. */
export const serveOptions = {
  socket: requiredText('PATH', {
    help: 'Where Firecracker connects: the backend_path of its mem_backend.\nA stale socket file is taken over, a live one is not.',
  }),
  snapshot: requiredText('FILE', { help: 'The guest memory file that Firecracker wrote.' }),
  once: flag({ help: 'Serves one guest and ends.' }),
  'prefetch-mode': choice(['install', 'fetch'], {
    help: 'Installs the pages of --prefetch, or only reads them into the\nmemory of the host.',
    default: 'install',
  }),
  http: text('HOST:PORT|unix:PATH', {
    help: 'Serves a live page there, /metrics for Prometheus, and /guests as\nJSON. A port alone is one of 127.0.0.1.',
  }),
  'http-guests': flag({ help: 'Has /metrics tell of each guest too: some thirty series each.' }),
  ...servingOptions,
  config,
  demo: flag({ help: 'Shows what this does on a guest of its own; needs nothing.' }),
  version: flag({ help: 'Prints the version.' }),
  help: flag({ help: 'Prints this.' }),
}

/** The values of the common options. */
export type ServingValues = Values<typeof servingOptions>

/** The values of these options. */
export type ServeValues = Values<typeof serveOptions>

/** How often figures are shown, in milliseconds, or never. */
export function statsEvery({ stats: every }: ServingValues): number | undefined {
  return every === off ? undefined : (every ?? 1000)
}
