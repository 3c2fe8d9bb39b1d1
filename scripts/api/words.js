// Text of comments and types as Markdown, with links to what the page describes.

/** What a heading is called in links, as GitHub does it; the second of two alike has a number. */
function anchorsOf(headings) {
  const seen = new Map()
  const anchors = new Map()
  for (const heading of headings) {
    const plain = heading
      .toLowerCase()
      .replaceAll(/[^\w\- ]/g, '')
      .replaceAll(' ', '-')
    const count = seen.get(plain) ?? 0
    seen.set(plain, count + 1)
    anchors.set(heading, count === 0 ? plain : `${plain}-${count}`)
  }
  return anchors
}

export class Words {
  #anchors

  /** `headings` are all of the page, in order. */
  constructor(headings) {
    this.#anchors = anchorsOf(headings)
  }

  /** Words that lead to a heading. */
  linked(text, heading) {
    return `[${text}](#${this.#anchors.get(heading)})`
  }

  /** A comment: `{@link Guest.stop}` leads to its class. */
  text(comment, own) {
    return comment.replaceAll(/\{@link ([\w.]+)\}/g, (_, name) => {
      const [head] = name.split('.')
      return this.#anchors.has(head) && head !== own
        ? this.linked(`\`${name}\``, head)
        : `\`${name}\``
    })
  }

  /** A comment in a cell of a table. */
  cell(comment, own) {
    return this.text(comment, own)
      .replaceAll('|', '\\|')
      .replaceAll(/\n\n+/g, '<br>')
      .replaceAll(/\s*\n\s*/g, ' ')
  }

  /** A type in a cell of a table: as code, and its parts that the page describes as links. */
  type(text) {
    const parts = text.replaceAll(/\s+/g, ' ').split(/\b([A-Za-z]\w*)\b/)
    let [out, plain] = ['', '']
    const flush = () => {
      if (plain.trim() !== '') out += `\`${plain}\``
      else out += plain
      plain = ''
    }
    for (const [at, part] of parts.entries()) {
      if (at % 2 === 0 || !this.#anchors.has(part)) {
        plain += part
        continue
      }
      flush()
      out += this.linked(`\`${part}\``, part)
    }
    flush()
    return out.replaceAll('|', '\\|')
  }
}
