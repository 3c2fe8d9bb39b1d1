// The native part for ES modules. In Node.js 20 nobody can catch what a CommonJS module throws
// while an ES module imports it; what is thrown here can be caught.
import { createRequire } from 'node:module'

export default createRequire(import.meta.url)('./index.cjs')
