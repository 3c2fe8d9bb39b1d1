import { type ExecutionContext } from 'ava'

/** Collects this package's warnings until the end of the test, which has to be a serial one. */
export function warnings(t: ExecutionContext): { next: () => Promise<Error & { code?: string }> } {
  const seen: Error[] = []
  let wake = () => {}
  const listener = (warning: Error) => {
    if (warning.name !== 'UffdWarning') return
    seen.push(warning)
    wake()
  }
  process.on('warning', listener)
  t.teardown(() => process.off('warning', listener))
  return {
    async next() {
      while (seen.length === 0) {
        await new Promise<void>((resolve) => {
          wake = resolve
        })
      }
      return seen.shift()!
    },
  }
}
