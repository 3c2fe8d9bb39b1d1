// Test equipment: a process that hands off its memory like Firecracker, for tests and the demo.
// `node guest-program.js --help` tells how to use it.
import native from '#native'

process.exit(native.runGuest(process.argv.slice(2)))
