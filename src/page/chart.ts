// Numbers over time.

const height = 90

/** A line: its colour by the name in the style sheet, and its values from left to right. */
export interface Line {
  readonly colour: string
  readonly values: readonly (number | undefined)[]
}

/** Draws lines from 0, or on a scale of powers; `room` values fit the width. */
export function chart(
  canvas: HTMLCanvasElement,
  lines: readonly Line[],
  room: number,
  label: (most: number) => string,
  isLogarithmic = false,
): void {
  const ratio = devicePixelRatio
  canvas.width = canvas.clientWidth * ratio
  canvas.height = height * ratio
  canvas.style.height = `${height}px`
  const context = canvas.getContext('2d')!
  context.scale(ratio, ratio)
  const width = canvas.clientWidth
  const style = getComputedStyle(canvas)
  const known = lines.flatMap(({ values }) => values.filter((value) => value !== undefined))
  const finite = known.filter((value) => value !== Infinity)
  const most = Math.max(1, ...finite)
  const place = (value: number) => {
    const capped = Math.min(value, most * 1.1)
    const share = isLogarithmic
      ? Math.log1p(capped) / Math.log1p(most * 1.1)
      : capped / (most * 1.1)
    return height - 2 - share * (height - 16)
  }
  context.strokeStyle = style.getPropertyValue('--line')
  context.strokeRect(0.5, 0.5, width - 1, height - 1)
  for (const { colour, values } of lines) {
    context.strokeStyle = style.getPropertyValue(`--${colour}`)
    context.lineWidth = 1.5
    context.beginPath()
    let isDown = false
    for (const [at, value] of values.entries()) {
      if (value === undefined) continue
      const x = ((room - values.length + at + 1) / room) * width
      if (isDown) context.lineTo(x, place(value))
      else context.moveTo(x, place(value))
      isDown = true
    }
    context.stroke()
  }
  context.fillStyle = style.getPropertyValue('--faint')
  context.font = '10px system-ui, sans-serif'
  if (known.length > 0) context.fillText(label(most), 4, 12)
}
