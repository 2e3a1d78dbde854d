// `npm run loopback [-- N]`: N members (default 200) in one process on loopback. Prints when every view is full and all roots are
// equal, and what an idle member sends, from `metrics()`.
import { setTimeout as sleep } from 'node:timers/promises'
import { setup } from './setup.mjs'

await setup()
const { createTestCluster } = await import('../dist/testing.js')

const count = Number(process.argv[2] ?? 200)
const IDLE_MS = 30_000
const cpu = () => {
  const { user, system } = process.cpuUsage()
  return (user + system) / 1000
}

const began = performance.now()
const tc = await createTestCluster(count)
const viewsMs = performance.now() - began
await tc.converged({ timeoutMs: 120_000 })
const rootsMs = performance.now() - began

const [writer] = tc.clusters
const wrote = performance.now()
writer.state.set('one/update', 'x'.repeat(64))
while (!tc.clusters.every((cluster) => cluster.state.has('one/update'))) await sleep(2)
const updateMs = performance.now() - wrote

// Sessions and ticks of the start are over.
await sleep(15_000)
const total = () =>
  tc.clusters
    .map((cluster) => cluster.metrics().traffic)
    .reduce(
      (sum, t) => ({
        bytes: sum.bytes + t.bytesSent + t.frameBytesSent,
        datagrams: sum.datagrams + t.datagramsSent,
      }),
      {
        bytes: 0,
        datagrams: 0,
      },
    )
const before = total()
const cpuBefore = cpu()
await sleep(IDLE_MS)
const after = total()
const seconds = IDLE_MS / 1000
console.log(
  JSON.stringify({
    members: count,
    fullViewsMs: Math.round(viewsMs),
    equalRootsMs: Math.round(rootsMs),
    updateEverywhereMs: Math.round(updateMs),
    idleBytesPerMemberSecond: Math.round(((after.bytes - before.bytes) / count / seconds) * 10) / 10,
    idleDatagramsPerMemberSecond:
      Math.round(((after.datagrams - before.datagrams) / count / seconds) * 100) / 100,
    cpuMsPerMemberSecond: Math.round(((cpu() - cpuBefore) / count / seconds) * 1000) / 1000,
    rssMiB: Math.round(process.memoryUsage().rss / 1048576),
  }),
)
await tc.stopAll()
