import { fileURLToPath } from 'node:url'

/** The guest program, as it was built. */
export default fileURLToPath(new URL('../guest-program.js', import.meta.url))
