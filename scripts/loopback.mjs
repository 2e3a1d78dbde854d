// `npm run loopback [-- N]`: N members (default 200) in one process on loopback. Prints when every view is full and all roots are
// equal, what an idle member sends, from `metrics()`, and how long a restart of all within a second, a rolling restart and a join of
// all at once through one seed take.
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

const seedsOf = (address) =>
  tc.clusters
    .slice(0, 3)
    .map((c) => c.self.address)
    .filter((a) => a !== address)
let deaths = 0
const watched = new WeakSet()
const watch = (cluster) => {
  if (watched.has(cluster)) return
  watched.add(cluster)
  cluster.on('memberDied', () => deaths++)
}
/** A member ends as in a crash and starts again under its name, at its address. */
const again = async (cluster) => {
  const { name, address } = cluster.self
  await tc.kill(tc.clusters.indexOf(cluster))
  watch(await tc.add({ name, bind: address, seeds: seedsOf(address) }))
}
const timed = async (line, work) => {
  deaths = 0
  tc.running.forEach(watch)
  const from = performance.now()
  await work()
  await tc.converged({ timeoutMs: 120_000 })
  console.log(JSON.stringify({ ...line, wholeMs: Math.round(performance.now() - from), deaths }))
}

await timed({ step: 'all restarted within 1 s', members: count }, () =>
  Promise.all(
    tc.running.map(async (cluster, i) => {
      await sleep((i * 1000) / count)
      await again(cluster)
    }),
  ),
)
const rolled = tc.running.slice(0, 20)
await timed({ step: 'rolling restart, one per 0.5 s', members: count, restarts: rolled.length }, async () => {
  for (const cluster of rolled) {
    await again(cluster)
    await sleep(500)
  }
})
await tc.stopAll()

const first = await createTestCluster(1)
const seeds = [first.clusters[0].self.address]
const from = performance.now()
const others = await Promise.all(
  Array.from({ length: count - 1 }, (_, i) => first.add({ name: `j${i}`, seeds, joinTimeoutMs: 60_000 })),
)
await first.converged({ timeoutMs: 120_000 })
console.log(
  JSON.stringify({
    step: 'mass join through one seed',
    members: others.length + 1,
    wholeMs: Math.round(performance.now() - from),
  }),
)
await first.stopAll()
