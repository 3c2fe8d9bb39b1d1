import { duration } from '../arguments/duration.js'
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
import type { NetworkOverride } from '../../index.js'
import { servingOptions } from '../serve/options.js'

const networkOverrides: Option<NetworkOverride[] | undefined> = {
  takes: 'ID=TAP[,ID=TAP…]',
  help: 'Other TAP devices than in the snapshot. From Firecracker 1.12.',
  read: (given) =>
    given.split(',').map((pair) => {
      const [, ifaceId, hostDevName] = /^([^=]+)=([^=]+)$/.exec(pair) ?? []
      if (ifaceId === undefined || hostDevName === undefined) {
        throw new UsageError('must be pairs such as eth0=tap7')
      }
      return { ifaceId, hostDevName }
    }),
  absent: undefined,
}

/** The options of free pages, for whatever deals with a template. */
export const freePageOptions = {
  'free-page-reporting': negatable({
    help: 'The guest gives free pages back by itself. From Firecracker\n1.14; decided before boot.',
    default: "the template's",
  }),
  'free-page-hinting': negatable({
    help: 'The guest can be asked for its free pages. From Firecracker\n1.14; decided before boot.',
    default: "the template's",
  }),
}

/** The table of what `uffd-rs-serve restore` takes; also its help. */
export const restoreOptions = {
  'api-socket': requiredText('PATH', {
    help: 'The API socket of a Firecracker that was told nothing yet.',
  }),
  'snapshot-state': text('FILE', {
    help: 'The state of the microVM, as Firecracker sees it.',
    default: "the template's",
  }),
  snapshot: text('FILE', {
    help: 'The guest memory file, as this command sees it.',
    default: "the template's",
  }),
  template: text('FILE', {
    help: 'The template of the snapshot: what is restored has to agree.',
  }),
  ...freePageOptions,
  socket: text('PATH', {
    help: 'Where Firecracker connects to have its memory served.',
    default: 'the API socket and .uffd',
  }),
  'backend-path': text('PATH', {
    help: 'The same socket as Firecracker sees it, inside its jail.',
    default: '--socket',
  }),
  resume: negatable({ help: 'Resumes the guest.', default: 'on' }),
  'prefetch-first': duration({
    help: 'How long the guest stays paused at the most until the pages of\nits trace are there.',
    default: 'none: it runs beside the prefetch',
  }),
  'track-dirty-pages': negatable({
    help: 'Firecracker tracks written pages, for diff snapshots.',
    default: "the template's, else off",
  }),
  'network-overrides': networkOverrides,
  'vsock-override': text('PATH', {
    help: 'Another vsock socket than in the snapshot. From Firecracker 1.16.',
  }),
  'huge-pages': choice(['Snapshot', 'None', 'Transparent', '2M'], {
    help: 'The pages that back guest memory, if others than in the snapshot.\nFrom Firecracker 1.17.',
    default: 'Snapshot',
  }),
  'require-huge-pages': negatable({
    help: 'Refuses a guest on 2 MiB pages that the pool of this host cannot\nhold beside the others of this command.',
    default: 'on',
  }),
  'clock-realtime': flag({
    help: 'Advances the clock of the guest by the time since the snapshot.\nFrom Firecracker 1.16.',
  }),
  'load-timeout': duration({ help: 'How long the load may take.', default: '60s' }),
  ...servingOptions,
  config,
  help: flag({ help: 'Prints this.' }),
}

/** The values of these options. */
export type RestoreValues = Values<typeof restoreOptions>
