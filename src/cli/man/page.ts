import type { Command } from '../command.js'
import { commands } from '../commands.js'
import { version } from '../version.js'

const program = 'uffd-rs-serve'

/** The manual page, in the man macros. Made from the tables that also make the help. */
export function page(): string {
  const [serving, ...others] = commands
  return [
    `.TH ${program.toUpperCase()} 1 "" "uffd-rs ${version()}" "User Commands"`,
    '.SH NAME',
    `${text(program)} \\- ${text('serves the memory of Firecracker microVMs restored from snapshots')}`,
    '.SH SYNOPSIS',
    ...commands
      .flatMap(({ usage }) => usage)
      .flatMap((form) => [`.B ${text(program)}`, text(form), '.br']),
    '.SH DESCRIPTION',
    text(serving!.about),
    '.SH OPTIONS',
    ...options(serving!),
    ...others.flatMap(section),
    '.SH EXIT STATUS',
    text(
      '0 if no guest failed or was refused and every trace was saved, 1 otherwise, 2 if the command line is wrong.',
    ),
    '.SH SIGNALS',
    text(
      'SIGTERM, SIGINT and SIGHUP end it in good order, a second one at once. With a state directory, SIGUSR2 leaves the guests to the next server.',
    ),
    '',
  ].join('\n')
}

function section(command: Command): string[] {
  const lines = [`.SH ${text(command.name.toUpperCase())}`, text(command.about)]
  lines.push(...options(command))
  if (command.notes !== undefined) lines.push('.PP', text(command.notes))
  return lines
}

function options({ options: all }: Command): string[] {
  const lines: string[] = []
  for (const [name, { takes, help, default: preset, negatable }] of Object.entries(all)) {
    const dashed = negatable ? `--[no-]${name}` : `--${name}`
    const value = takes === undefined ? '' : ` \\fI${text(takes)}\\fR`
    lines.push('.TP', `\\fB${text(dashed)}\\fR${value}`, text(help.replaceAll('\n', ' ')))
    if (preset !== undefined) lines.push(text(`Default: ${preset}.`))
  }
  return lines
}

/** Text as troff takes it: no line of it is a request, no dash a hyphen. */
function text(plain: string): string {
  return plain
    .replaceAll('\\', '\\e')
    .replaceAll('-', '\\-')
    .replaceAll('…', '...')
    .replaceAll(/^(?=[.'])/gm, '\\&')
}
