// SPDX licence expressions: `(MIT OR Apache-2.0) AND Unicode-3.0`.

/** Whether an expression can be satisfied with these licences alone. */
export function allows(expression, allowed) {
  if (typeof expression !== 'string') return false
  // A slash is an old way to write OR.
  const words = expression.replaceAll('/', ' OR ').match(/[()]|[^\s()]+/g) ?? []
  let at = 0
  const accept = (word) => words[at] === word && ++at > 0

  function either() {
    let result = both()
    while (accept('OR')) result = both() || result
    return result
  }
  function both() {
    let result = one()
    while (accept('AND')) result = one() && result
    return result
  }
  function one() {
    if (accept('(')) {
      const result = either()
      return accept(')') && result
    }
    const licence = words[at++]
    // An exception only adds permissions.
    if (accept('WITH')) at++
    return allowed.has(licence)
  }

  const result = either()
  return result && at === words.length
}
