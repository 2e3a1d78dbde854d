import test from 'ava'
import type { ClusterOptions } from '../ts/index.js'
import { createTestCluster } from '../ts/testing.js'

const variants: Record<string, NonNullable<ClusterOptions['gossip']>> = {
  push: { mode: 'push' },
  pull: { mode: 'pull' },
  'Demers, feedback and counter': { mode: 'push', rumor: { feedback: true, loss: 'counter', k: 2 } },
  'Demers, blind and coin': { rumor: { feedback: false, loss: 'coin', k: 2 } },
}

for (const [name, gossip] of Object.entries(variants)) {
  test(`a cluster of mode ${name} converges, and its rumors grow cold`, async (t) => {
    await using test = await createTestCluster(5, { gossip })
    const [a, b] = test.clusters
    for (let key = 0; key < 20; key++) a?.state.set(`k${key}`, { key })
    b?.state.set('b', true)
    await test.converged({ timeoutMs: 20_000 })
    for (const cluster of test.clusters) t.is(cluster.state.size, 21)
    const { idsSent = 0, recordsSent = 0 } = a?.metrics().rumors ?? {}
    t.true(gossip.mode === 'pull' ? idsSent > recordsSent : recordsSent >= 20, name)
  })
}

test('members of different modes converge', async (t) => {
  const modes = ['push', 'pull', 'push-pull'] as const
  await using test = await createTestCluster(6, (i) => ({ gossip: { mode: modes[i % 3] } }))
  test.clusters.forEach((cluster, i) => void cluster.state.set(`from/${i}`, i))
  await test.converged({ timeoutMs: 20_000 })
  for (const cluster of test.clusters) t.is(cluster.state.size, 6)
})
