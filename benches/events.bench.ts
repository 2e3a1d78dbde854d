import b from 'benny'
import { Cluster } from '../ts/index.js'
import { type NativeEvent, readEvents } from '../ts/packed.js'

/** Packed changes as the addon writes them, 256 to a batch. */
function batch(count: number): Buffer {
  const text = (value: string): Buffer => {
    const length = Buffer.alloc(4)
    length.writeUInt32LE(value.length)
    return Buffer.concat([length, Buffer.from(value)])
  }
  const records = Array.from({ length: count }, (_, i) => {
    const origin = Buffer.concat([Buffer.of(1), text('member-1')])
    const body = Buffer.concat([
      Buffer.of(9, 0),
      text(`key/${i}`),
      text('{"on":true}'),
      text('0'.repeat(32)),
      origin,
    ])
    const head = Buffer.alloc(4)
    head.writeUInt32LE(body.length)
    return Buffer.concat([head, body])
  })
  return Buffer.concat(records)
}

const packed = batch(256)
const WRITES = 5_000

await b.suite(
  'events from the addon',
  b.add('decode a packed batch of 256 changes', () => {
    const events: NativeEvent[] = []
    readEvents(packed, packed.length, events)
  }),
  b.cycle(),
  b.complete(),
)

// Whole way: write, driver thread, ring, wake-up, drain, watcher. Timed by hand: one case is thousands of events.
const cluster = await Cluster.start()
const rates: number[] = []
for (let round = 0; round < 20; round++) {
  const changes = cluster.state.watch()
  const began = performance.now()
  for (let i = 0; i < WRITES; i++) cluster.state.set(`k/${i}`, i)
  let seen = 0
  for await (const _ of changes) if (++seen === WRITES) break
  rates.push(WRITES / (performance.now() - began))
}
await cluster.stop()
rates.sort((x, y) => x - y)
const at = (share: number): string =>
  ((rates[Math.floor((rates.length - 1) * share)] ?? 0) * 1_000).toFixed(0)
console.log(`set to watch, ${WRITES} at once: median ${at(0.5)}/s, slowest ${at(0)}/s, fastest ${at(1)}/s`)
