// A full replica to a newcomer, and what the heartbeats of the member that gives it look like to a third one meanwhile.
import { setTimeout as sleep } from 'node:timers/promises'
import { Fleet } from './fleet.mjs'
import { ENTRY_BYTES, KEY_BYTES, VALUE_BYTES } from './repair.mjs'
import { quantile } from './spread.mjs'

/** Short, so that a transfer of seconds spans many of them. */
const OPTIONS = { failureDetector: { heartbeatIntervalMs: 100 } }

const jitter = (gaps) => ({
  beats: gaps.length,
  p99Ms: quantile(gaps, 0.99),
  maxMs: quantile(gaps, 1),
})

/**
 * @param {{ keys: number, idleMs: number, say: (text: string) => void }} plan
 */
export async function measure({ keys, idleMs, say }) {
  const fleet = await Fleet.start(1, 1, OPTIONS)
  try {
    const join = async () => {
      const began = await fleet.grow(1, OPTIONS)
      const done = await fleet.all('complete', { count: keys, timeoutMs: 600_000 })
      if (done.some(({ at }) => at === null)) throw new Error('a newcomer is not complete after ten minutes')
      return Math.max(...done.map(({ at }) => at)) - began
    }
    await fleet.one(0, 'fill', { prefix: 'key/', count: keys, bytes: VALUE_BYTES })
    await join()
    say(`two members hold ${keys} keys`)
    // A newcomer asks one of them: each watches the other.
    await fleet.one(0, 'observe', { name: 'm1' })
    await fleet.one(1, 'observe', { name: 'm0' })
    await sleep(2_000)
    await Promise.all([fleet.one(0, 'gaps'), fleet.one(1, 'gaps')])
    await sleep(idleMs)
    const idle = (await Promise.all([fleet.one(0, 'gaps'), fleet.one(1, 'gaps')])).flat()
    const spent = () => Promise.all([fleet.one(0, 'spent'), fleet.one(1, 'spent')])
    const from = await spent()
    const ms = await join()
    const during = await Promise.all([fleet.one(0, 'gaps'), fleet.one(1, 'gaps')])
    const to = await spent()
    const frames = to.map((part, i) => part.frameBytes - from[i].frameBytes)
    const bytes = to.map((part, i) => frames[i] + part.datagramBytes - from[i].datagramBytes)
    const source = frames[0] > frames[1] ? 0 : 1
    return {
      keys,
      ms,
      bytes: bytes[0] + bytes[1],
      floorBytes: keys * (KEY_BYTES + VALUE_BYTES + ENTRY_BYTES),
      sourceCpuMs: to[source].cpuMs - from[source].cpuMs,
      heartbeatMs: OPTIONS.failureDetector.heartbeatIntervalMs,
      idle: jitter(idle),
      during: jitter(during[1 - source]),
    }
  } finally {
    await fleet.stop()
  }
}
