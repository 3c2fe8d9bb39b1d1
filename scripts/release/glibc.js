// Which glibc a program or an addon needs: its table of symbol versions names each as `GLIBC_2.17`.

/** What a release may need at most. */
export const promisedGlibc = '2.17'

/** The newest glibc that something in this file asks for; nothing where it asks for none. */
export function glibcOf(bytes) {
  const named = bytes.toString('latin1').matchAll(/(?<=\0)GLIBC_(2\.\d+)(?:\.\d+)?(?=\0)/g)
  return [...named].map(([, version]) => version).toSorted((a, b) => minor(b) - minor(a))[0]
}

/** What keeps this file from running with the oldest glibc, if anything does. */
export function tooNew(name, bytes) {
  const needs = glibcOf(bytes)
  if (needs === undefined || minor(needs) <= minor(promisedGlibc)) return undefined
  return (
    `${name} needs glibc ${needs}, and has to run with ${promisedGlibc}: build it with ` +
    `--cross-compile --target …-linux-gnu.${promisedGlibc}`
  )
}

const minor = (version) => Number(version.split('.')[1])
