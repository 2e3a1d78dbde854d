import test from 'ava'
import { PhiAccrualDetector } from '../ts/index.js'

test('phi is 0 before two heartbeats and rises with silence', (t) => {
  const detector = new PhiAccrualDetector()
  t.is(detector.phi(0), 0)
  detector.heartbeat(1_000)
  t.is(detector.phi(1_000_000), 0)
  for (let now = 2_000; now <= 20_000; now += 1_000) detector.heartbeat(now)
  t.is(detector.mean, 1_000)
  t.is(detector.stdDev, 0)
  t.is(detector.samples, 19)
  const [early, due, late] = [detector.phi(20_100), detector.phi(21_000), detector.phi(21_500)]
  t.true(early < due && due < late)
  // At the mean the tail is one half.
  t.true(Math.abs(due - Math.log10(2)) < 1e-12)
  // Five deviations of 100 ms: -log10 of the tail beyond 5 sigma, 2.866515718791939e-7.
  t.true(Math.abs(late + Math.log10(2.866515718791939e-7)) < 1e-9)
  t.true(detector.isAvailable(21_500))
  t.false(detector.isAvailable(21_600))
})

test('the deviation is that of the population', (t) => {
  const detector = new PhiAccrualDetector({ windowSize: 2 })
  for (const now of [0, 5_000, 6_000, 9_000]) detector.heartbeat(now)
  t.is(detector.mean, 2_000)
  t.is(detector.stdDev, 1_000)
})

test('the exponential model looks at the mean only', (t) => {
  const detector = new PhiAccrualDetector({ model: 'exponential' })
  for (let now = 0; now <= 5_000; now += 1_000) detector.heartbeat(now)
  t.true(Math.abs(detector.phi(8_000) - 3 * Math.LOG10E) < 1e-12)
})

test('times that cannot be are refused and change nothing', (t) => {
  const detector = new PhiAccrualDetector()
  detector.heartbeat(1_000)
  detector.heartbeat(2_000)
  for (const bad of [Number.NaN, Number.POSITIVE_INFINITY, 1_999]) {
    t.throws(() => detector.heartbeat(bad), { code: 'ERR_HEARSAY_TIME' })
    t.throws(() => detector.phi(bad), { code: 'ERR_HEARSAY_TIME' })
    t.throws(() => detector.isAvailable(bad), { code: 'ERR_HEARSAY_TIME' })
  }
  t.throws(() => detector.heartbeat('3000' as never), { code: 'ERR_HEARSAY_ARGUMENT', message: /got '3000'/ })
  t.is(detector.samples, 1)
})

test('wrong options', (t) => {
  t.throws(() => new PhiAccrualDetector({ threshold: 0 }), {
    code: 'ERR_HEARSAY_OPTION',
    message: 'threshold must be > 0, got 0',
  })
  t.throws(() => new PhiAccrualDetector({ model: 'gauss' } as never), {
    code: 'ERR_HEARSAY_OPTION',
    message: /^model must be/,
  })
})
