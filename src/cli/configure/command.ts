import { flag, requiredText } from '../arguments/option.js'
import { command } from '../command.js'
import { freePageOptions } from '../restore/options.js'

/** `uffd-rs-serve configure`: what a template says, told to a Firecracker before boot. */
export const configure = command({
  name: 'configure',
  summary: 'sets a microVM up as its template says',
  usage: ['configure --api-socket PATH --template FILE [options]'],
  about: `Tells a fresh Firecracker the machine and the balloon of a template, before its boot. Nothing
is told to a Firecracker that is too old for the template.`,
  options: {
    'api-socket': requiredText('PATH', {
      help: 'The API socket of a Firecracker whose guest has not started.',
    }),
    template: requiredText('FILE', { help: 'The template.' }),
    ...freePageOptions,
    help: flag({ help: 'Prints this.' }),
  },
  notes: 'Exit status: 0 if Firecracker has taken it, 1 otherwise, 2 if the command line is wrong.',
  run: async (values) => {
    const { configureByTemplate } = await import('./configure.js')
    return await configureByTemplate(values['api-socket'], values.template, {
      freePageReporting: values['free-page-reporting'],
      freePageHinting: values['free-page-hinting'],
    })
  },
})
