// What the demo shows: live lines on a terminal, plain lines elsewhere, or one JSON object per step.
import { styleText } from 'node:util'

const BARS = ' ▁▂▃▄▅▆▇█'

export function createScreen({ json, out = process.stdout }) {
  const live = !json && Boolean(out.isTTY)
  const paint = (style, text) => (live ? styleText(style, text) : text)
  let open = false

  function line(text) {
    if (json) {
      return
    }
    if (open) {
      out.write('\r\u001b[2K')
      open = false
    }
    out.write(`${text}\n`)
  }

  return {
    title(text) {
      line(`\n${paint('bold', text)}`)
    },
    line: (text) => line(`  ${text}`),
    /** A line that the next one overwrites; shown on terminals only. */
    live(text) {
      if (live) {
        out.write(`\r\u001b[2K  ${text}`.slice(0, (out.columns ?? 100) + 8))
        open = true
      }
    },
    step(result) {
      if (json) {
        out.write(`${JSON.stringify(result)}\n`)
      } else {
        const mark = result.ok ? paint('green', 'ok') : paint('red', `FAILED: ${result.error ?? ''}`)
        line(`  ${result.step}: ${mark} in ${result.ms} ms`)
      }
    },
  }
}

/** Phi over time as one row of bars; the threshold is full height, what is above it too. */
export function plotPhi(samples, threshold) {
  return samples
    .map(({ phi }) => {
      const share = phi === 'infinity' ? 1 : Math.min(1, (phi ?? 0) / threshold)
      return BARS[Math.round(share * (BARS.length - 1))]
    })
    .join('')
}
