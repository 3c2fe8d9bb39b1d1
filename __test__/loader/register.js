// Finds the TypeScript sources. The loader that compiles them does so too, but not in a checkout
// whose path a URL has to encode, such as one with a space.
import { register } from 'node:module'

register('./resolve.js', import.meta.url)
