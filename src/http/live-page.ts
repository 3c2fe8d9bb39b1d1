import { colours } from '../report/style.js'
import type { Page } from './respond.js'

/** The page may do nothing but show itself and listen to where it comes from. */
const policy = [
  "default-src 'none'",
  "script-src 'self'",
  "style-src 'self'",
  "connect-src 'self'",
  'img-src data:',
  "frame-ancestors 'none'",
].join('; ')

/** The files of the live page, by their paths. Read when somebody wants to serve them. */
export async function livePage(): Promise<[string, Page][]> {
  const { default: files } = await import('#page')
  return Object.entries(files).map(([path, { type, body }]) => {
    const whole = type.startsWith('text/css') ? `${colours}\n${body}` : body
    return [path, () => ({ type, body: whole, policy })]
  })
}
