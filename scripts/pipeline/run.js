// Runs programs of a stage, showing what they print.
import { spawn } from 'node:child_process'
import { fileURLToPath } from 'node:url'

/** The folder of the checkout. */
export const root = fileURLToPath(new URL('../..', import.meta.url))

/**
 * Runs a program to its end and resolves with its exit status and what it printed on standard
 * output. It has no standard input: nothing here asks questions.
 */
export async function run(program, args, { quiet = false, cwd = root } = {}) {
  const child = spawn(program, args, {
    cwd,
    stdio: ['ignore', 'pipe', 'inherit'],
    env: { ...process.env, ...(process.stdout.isTTY && { CARGO_TERM_COLOR: 'always' }) },
  })
  let output = ''
  child.stdout.setEncoding('utf8').on('data', (text) => {
    output += text
    if (!quiet) process.stdout.write(text)
  })
  const status = await new Promise((resolve) => {
    child.once('error', (error) => {
      console.error(`Cannot run ${program}: ${error.message}`)
      resolve(127)
    })
    child.once('close', (code, signal) => resolve(code ?? signal))
  })
  return { status, output }
}

/** A program of a package in node_modules. */
export const tool = (name) => `${root}/node_modules/.bin/${name}`
