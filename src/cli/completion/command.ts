import { flag } from '../arguments/option.js'
import { UsageError } from '../arguments/usage-error.js'
import { oneOf } from '../arguments/words.js'
import { command, type Command } from '../command.js'
import { exitStatus } from '../exit-status.js'

const known = ['bash', 'zsh', 'fish'] as const

/** `uffd-rs-serve completion SHELL`: what makes a shell complete these commands. */
export const completionOf = (commands: () => readonly Command[]) =>
  command({
    name: 'completion',
    summary: 'completes this command in a shell',
    usage: ['completion bash|zsh|fish'],
    about: `Prints a script that makes a shell complete this command:
  bash: source <(uffd-rs-serve completion bash)
  zsh:  uffd-rs-serve completion zsh > ~/.zfunc/_uffd-rs-serve, with ~/.zfunc in fpath
  fish: uffd-rs-serve completion fish > ~/.config/fish/completions/uffd-rs-serve.fish`,
    words: { names: 'SHELL', least: 1, most: 1 },
    options: { help: flag({ help: 'Prints this.' }) },
    run: async (_, [given]) => {
      const shell = known.find((one) => one === given)
      if (shell === undefined) throw new UsageError(`SHELL must be ${oneOf(known)}, not ${given}`)
      const [{ shells }, { table }] = await Promise.all([
        import('./shells.js'),
        import('./table.js'),
      ])
      process.stdout.write(shells[shell](table(commands())))
      return exitStatus.ok
    },
  })
