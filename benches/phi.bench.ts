import b from 'benny'
import { PhiAccrualDetector } from '../ts/index.js'

/** What afd 0.2.7 and others do, written plainly: an exponential model whose mean is summed up at each call. */
class PlainExponential {
  readonly intervals: number[] = []
  last = 0
  heartbeat(now: number): void {
    if (this.last !== 0) this.intervals.push(now - this.last)
    if (this.intervals.length > 100) this.intervals.shift()
    this.last = now
  }
  phi(now: number): number {
    const mean = this.intervals.reduce((sum, interval) => sum + interval, 0) / this.intervals.length
    return (now - this.last) / (mean * Math.LN10)
  }
}

const normal = new PhiAccrualDetector({ windowSize: 100 })
const exponential = new PhiAccrualDetector({ windowSize: 100, model: 'exponential' })
const plain = new PlainExponential()
let now = 0
for (let i = 0; i < 200; i++) {
  now += 1_000 + (i % 7)
  for (const detector of [normal, exponential, plain]) detector.heartbeat(now)
}

await b.suite(
  'phi, window of 100',
  b.add('normal: phi', () => {
    normal.phi(now + 1_234)
  }),
  b.add('exponential: phi', () => {
    exponential.phi(now + 1_234)
  }),
  b.add('exponential in plain JavaScript: phi', () => {
    plain.phi(now + 1_234)
  }),
  b.add('normal: heartbeat', () => {
    now += 1_000
    normal.heartbeat(now)
  }),
  b.cycle(),
  b.complete(),
)
