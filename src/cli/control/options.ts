import { duration } from '../arguments/duration.js'
import { flag, negatable, text, type Values } from '../arguments/option.js'
import { UsageError } from '../arguments/usage-error.js'
import { localSocket, options as place } from '../../validate.js'

/** What follows the path of a server's socket in that of its control socket. */
export const controlSuffix = '.control'

/** Which server is meant. */
export const whichServer = {
  socket: text('PATH', { help: 'The socket that the server serves guests on.' }),
  control: text('PATH', {
    help: 'Its control socket, if it was given another one.',
    default: '--socket and .control',
  }),
}

export const timeout = (help: string, preset: string) =>
  ({ timeout: duration({ help, default: preset }) }) as const

export const json = negatable({
  help: 'JSON lines instead of text.',
  default: 'text on a terminal, JSON lines otherwise',
})

export const help = flag({ help: 'Prints this.' })

/** The path of the control socket that is meant. */
export function controlPath({ socket, control }: Values<typeof whichServer>): string {
  if ((socket === undefined) === (control === undefined)) {
    throw new UsageError('Say which server is meant: give either --socket PATH or --control PATH')
  }
  return socket === undefined
    ? localSocket(control!.replace(/^unix:/, ''), place().field('control'))
    : localSocket(`${socket}${controlSuffix}`, place().field('socket'))
}
