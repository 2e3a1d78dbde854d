import { once } from 'node:events'
import test from 'ava'
import type { Cluster } from '../ts/index.js'
import { createTestCluster, faults } from '../ts/testing.js'

const fast = {
  failureDetector: { heartbeatIntervalMs: 200, patienceMs: 500, minStdDevMs: 20 },
  antiEntropy: { settleMs: 1_000, confirmMs: 100 },
}

test('five members, full view, equal roots', async (t) => {
  await using tc = await createTestCluster(5)
  t.deepEqual(
    tc.clusters.map(({ self }) => self.name),
    ['m0', 'm1', 'm2', 'm3', 'm4'],
  )
  for (const cluster of tc.clusters) t.is(cluster.size, 5)
  tc.clusters[1]?.state.set('k', 'v')
  await tc.converged()
  for (const cluster of tc.clusters) t.is(cluster.state.get('k'), 'v')
  t.is(new Set(tc.clusters.map((cluster) => cluster.root())).size, 1)
})

test('options for each member by its index, and for one added', async (t) => {
  await using tc = await createTestCluster(2, (i) => ({ name: `db-${i}`, tags: { n: String(i) } }))
  t.deepEqual(
    tc.clusters.map(({ self }) => [self.name, self.tags.n]),
    [
      ['db-0', '0'],
      ['db-1', '1'],
    ],
  )
  const added = await tc.add({ name: 'late' })
  await tc.clusters[0]?.waitFor({ members: 3, timeoutMs: 10_000 })
  t.is(added.self.name, 'late')
  t.is(added.self.tags.n, '2')
  await tc.converged()
})

test('a partition divides the views, a heal unites them and their keys', async (t) => {
  await using tc = await createTestCluster(4, fast)
  const [a, b, c, d] = tc.clusters as [Cluster, Cluster, Cluster, Cluster]
  const divided = Promise.all(
    [a, b, c, d].map(async (cluster) => {
      while (cluster.size > 2) await once(cluster, 'memberDied')
    }),
  )
  tc.partition([0, 1], [2, 3])
  await divided
  a.state.set('left', 1)
  d.state.set('right', 2)
  const different = await t.throwsAsync(tc.converged({ timeoutMs: 100 }), { code: 'ERR_HEARSAY_TIMEOUT' })
  t.regex(different?.message ?? '', /^not converged after 100 ms: m0 does not see m2, m3$/)
  const healed = once(a, 'partitionHealed') as Promise<[{ members: string[] }]>
  const revived = once(a, 'memberRevived')
  tc.heal()
  await revived
  await tc.converged({ timeoutMs: 30_000 })
  for (const cluster of tc.clusters)
    t.deepEqual(cluster.state.entries(), [
      ['left', 1],
      ['right', 2],
    ])
  const [report] = await healed
  t.deepEqual([...report.members].sort(), ['m2', 'm3'])
})

test('isolated, healed', async (t) => {
  await using tc = await createTestCluster(3, fast)
  const alone = once(tc.clusters[0] as Cluster, 'memberDied')
  tc.isolate(2)
  await alone
  tc.heal()
  await tc.converged({ timeoutMs: 30_000 })
  t.is(tc.clusters[2]?.size, 3)
})

test('a cut between two is bridged by the third', async (t) => {
  await using tc = await createTestCluster(3, fast)
  tc.cut(0, 1)
  tc.clusters[0]?.state.set('k', 'v')
  const watch = tc.clusters[1]?.state.watch() as AsyncIterable<{ key: string }>
  if (!tc.clusters[1]?.state.has('k')) for await (const change of watch) if (change.key === 'k') break
  t.is(tc.clusters[1]?.state.get('k'), 'v')
  t.is(tc.clusters[1]?.size, 3)
})

test('loss and delay hold nobody up for good', async (t) => {
  await using tc = await createTestCluster(3)
  tc.loss(0.2)
  tc.delay(50)
  tc.clusters[0]?.state.set('k', 'v')
  await tc.converged({ timeoutMs: 20_000 })
  t.true((tc.clusters[0]?.metrics().dropped.fault ?? 0) > 0)
  tc.heal()
})

test('kill: the others find out; converged looks at the living', async (t) => {
  await using tc = await createTestCluster(3, fast)
  const died = once(tc.clusters[0] as Cluster, 'memberDied')
  await tc.kill(1)
  await died
  await tc.converged({ timeoutMs: 20_000 })
  t.is(tc.running.length, 2)
  t.throws(() => tc.cut(0, 1), { code: 'ERR_HEARSAY_ARGUMENT', message: /index 1/ })
  await tc.stopAll()
  await tc.stopAll()
})

test('faults of one member', async (t) => {
  await using tc = await createTestCluster(2, fast)
  const [a, b] = tc.clusters as [Cluster, Cluster]
  const died = once(a, 'memberDied')
  faults(a).cut([b.self.address])
  await died
  faults(a).heal()
  await tc.converged({ timeoutMs: 30_000 })
  t.throws(() => faults(a).cut(['localhost:1']), {
    code: 'ERR_HEARSAY_ARGUMENT',
    message: /'localhost:1' is not 'ip:port'/,
  })
  t.throws(() => faults(a).loss(2), {
    code: 'ERR_HEARSAY_ARGUMENT',
    message: 'loss must be a number in 0..1, got 2',
  })
  t.throws(() => faults(a).delay(-1), { code: 'ERR_HEARSAY_ARGUMENT' })
  t.throws(() => faults({} as Cluster).heal(), { code: 'ERR_HEARSAY_ARGUMENT' })
})

test('wrong counts', async (t) => {
  await t.throwsAsync(createTestCluster(0), { code: 'ERR_HEARSAY_ARGUMENT' })
  await t.throwsAsync(createTestCluster(1.5), { code: 'ERR_HEARSAY_ARGUMENT' })
})
