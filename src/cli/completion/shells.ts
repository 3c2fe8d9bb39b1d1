import { type CompletedCommand, type CompletedOption, type Value } from './table.js'

const program = 'uffd-rs-serve'

/** The scripts that complete the command, by shell. */
export const shells = { bash, zsh, fish } as const

/** A shell that there is a script for. */
export type Shell = keyof typeof shells

const quoted = (text: string) => `'${text.replaceAll("'", `'\\''`)}'`
const nameOf = ({ words }: CompletedCommand) => words.join(' ')
const named = (commands: readonly CompletedCommand[]) =>
  commands.filter(({ words }) => words.length > 0)

/** The first words of commands, each once. */
function firstWords(commands: readonly CompletedCommand[]): string[] {
  return [...new Set([...named(commands).map(({ words }) => words[0]!), 'help'])]
}

/** The second words of the commands that start with a first one. */
function families(commands: readonly CompletedCommand[]): [first: string, seconds: string[]][] {
  const kin = new Map<string, string[]>()
  for (const { words } of commands) {
    const [first, second] = words
    if (first !== undefined && second !== undefined) {
      kin.set(first, [...(kin.get(first) ?? []), second])
    }
  }
  return [...kin]
}

function bash(commands: readonly CompletedCommand[]): string {
  const options = commands.map((command) => {
    const names = command.options.map(({ name }) => name).join(' ')
    const pattern = command.words.length === 0 ? '*' : quoted(nameOf(command))
    return `    ${pattern}) options=${quoted(names)}; files=${command.takesFiles ? 'yes' : ''} ;;`
  })
  // The first pattern that matches counts, so the command without a name comes last.
  const [serving, ...others] = options
  const kin = families(commands)
  return `# Completes ${program} in bash: source <(${program} completion bash)
_uffd_rs_serve() {
  local current=\${COMP_WORDS[COMP_CWORD]} before=\${COMP_WORDS[COMP_CWORD-1]}
  local first='' second='' options files
  if [ "$COMP_CWORD" -gt 1 ]; then first=\${COMP_WORDS[1]}; fi
  if [ "$COMP_CWORD" -gt 2 ]; then second=\${COMP_WORDS[2]}; fi
  case "$first" in
${kin.map(([word]) => `    ${word}) first="$first $second" ;;`).join('\n')}
  esac
  case "$first" in
${[...others, serving!].join('\n')}
  esac
  COMPREPLY=()
  case "$before" in
${valueCases(commands).join('\n')}
  esac
  case "$current" in
    -*) mapfile -t COMPREPLY < <(compgen -W "$options" -- "$current"); return ;;
  esac
  if [ "$COMP_CWORD" -eq 1 ]; then
    mapfile -t COMPREPLY < <(compgen -W ${quoted(firstWords(commands).join(' '))} -- "$current")
    return
  fi
  if [ "$COMP_CWORD" -eq 2 ]; then
    case "$before" in
${kin.map(([word, seconds]) => `      ${word}) mapfile -t COMPREPLY < <(compgen -W ${quoted(seconds.join(' '))} -- "$current"); return ;;`).join('\n')}
    esac
  fi
  if [ -n "$files" ]; then mapfile -t COMPREPLY < <(compgen -f -- "$current"); fi
}
complete -o filenames -F _uffd_rs_serve ${program}
`
}

/** What follows options. One that means something else for another command keeps all its words. */
function valueCases(commands: readonly CompletedCommand[]): string[] {
  const values = new Map<string, Exclude<Value, 'nothing'>>()
  for (const { options } of commands) {
    for (const { name, value } of options) if (value !== 'nothing') values.set(name, value)
  }
  return [...values].map(([name, value]) => {
    if (value === 'anything') return `    ${name}) return ;;`
    const how = typeof value === 'string' ? '-f' : `-W ${quoted(value.join(' '))}`
    return `    ${name}) mapfile -t COMPREPLY < <(compgen ${how} -- "$current"); return ;;`
  })
}

function zsh(commands: readonly CompletedCommand[]): string {
  const functions = commands.map((command) => {
    const specs = command.options.map((option) => `    ${zshOption(option)}`)
    if (command.takesFiles) specs.push(`    '*:file:_files'`)
    return `${zshName(command)}() {\n  _arguments \\\n${specs.join(' \\\n')}\n}`
  })
  const words = firstWords(commands).map((word) => quoted(word))
  const cases = named(commands).map((command) => {
    const { length } = command.words
    // What is left starts with the command's last word, which stands for a program then.
    const rest = `shift ${length} words; (( CURRENT -= ${length} ))`
    return `    ${quoted(nameOf(command))}) ${rest}; ${zshName(command)} ;;`
  })
  const kin = families(commands)
  const second = kin.map(
    ([word, seconds]) =>
      `  if (( CURRENT == 3 )) && [[ $words[2] == ${word} ]]; then\n` +
      `    compadd -- ${seconds.join(' ')}\n    return\n  fi`,
  )
  const names = kin.map(([word]) => `    ${word}) named="$named $words[3]" ;;`)
  return `#compdef ${program}
# Completes ${program} in zsh: put this into a file _${program} of a directory in $fpath.
${functions.join('\n')}
_uffd_rs_serve() {
  if (( CURRENT == 2 )) && [[ $words[2] != -* ]]; then
    compadd -- ${words.join(' ')}
    return
  fi
${second.join('\n')}
  local named=$words[2]
  case $named in
${names.join('\n')}
  esac
  case $named in
${cases.join('\n')}
    *) _uffd_rs_serve_ ;;
  esac
}
if [[ $funcstack[1] == _${program} ]]; then
  _uffd_rs_serve "$@"
else
  compdef _uffd_rs_serve ${program}
fi
`
}

const zshName = ({ words }: CompletedCommand) => `_uffd_rs_serve_${words.join('_')}`

function zshOption({ name, help, value }: CompletedOption): string {
  const about = help.replaceAll(/[[\]:]/g, ' ')
  const spec = `${name}[${about}]`
  if (value === 'nothing') return quoted(spec)
  if (value === 'file') return quoted(`${spec}:file:_files`)
  return quoted(`${spec}:value:${value === 'anything' ? '' : `(${value.join(' ')})`}`)
}

function fish(commands: readonly CompletedCommand[]): string {
  const lines = named(commands)
    .filter(({ words }) => words.length === 1)
    .map(
      ({ words, summary }) =>
        `complete -c ${program} -n __fish_use_subcommand -f -a ${words[0]} -d ${quoted(summary)}`,
    )
  for (const [first, seconds] of families(commands)) {
    lines.push(`complete -c ${program} -n __fish_use_subcommand -f -a ${first}`)
    const only = `__fish_seen_subcommand_from ${first}; and not __fish_seen_subcommand_from ${seconds.join(' ')}`
    lines.push(`complete -c ${program} -n ${quoted(only)} -f -a ${quoted(seconds.join(' '))}`)
  }
  const first = firstWords(commands).join(' ')
  for (const command of commands) {
    const condition =
      command.words.length === 0
        ? `not __fish_seen_subcommand_from ${first}`
        : command.words.map((word) => `__fish_seen_subcommand_from ${word}`).join('; and ')
    for (const { name, help, value } of command.options) {
      const how =
        value === 'nothing'
          ? '-f'
          : value === 'file'
            ? '-r -F'
            : `-x -a ${quoted(value === 'anything' ? '' : value.join(' '))}`
      lines.push(
        `complete -c ${program} -n ${quoted(condition)} -l ${name.slice(2)} ${how} -d ${quoted(help)}`,
      )
    }
  }
  return `# Completes ${program} in fish: ${program} completion fish > ~/.config/fish/completions/${program}.fish\n${lines.join('\n')}\n`
}
