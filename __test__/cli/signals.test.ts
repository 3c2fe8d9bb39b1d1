import test from 'ava'
import { onSignals } from '../../src/cli/serve/signals.js'

test('the first signal asks for the end, the second one does not wait for it', (t) => {
  const exit = process.exit.bind(process)
  t.teardown(() => {
    process.exit = exit
  })
  process.exit = (status) => {
    throw new Error(`exit ${status}`)
  }
  const asked: string[] = []
  const forget = onSignals((signal) => asked.push(signal))

  process.emit('SIGTERM', 'SIGTERM')
  t.deepEqual(asked, ['SIGTERM'])
  t.throws(() => process.emit('SIGINT', 'SIGINT'), { message: 'exit 130' })
  t.throws(() => process.emit('SIGHUP', 'SIGHUP'), { message: 'exit 129' })
  t.deepEqual(asked, ['SIGTERM'])

  forget()
  for (const signal of ['SIGTERM', 'SIGINT', 'SIGHUP'] as const) {
    t.false(process.emit(signal, signal), signal)
  }
})
