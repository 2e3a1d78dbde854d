import { setTimeout as sleep } from 'node:timers/promises'
import test from 'ava'
import type { Cluster } from '../ts/index.js'
import { createTestCluster } from '../ts/testing.js'

test('to one member only, at most once, though datagrams are lost', async (t) => {
  await using tc = await createTestCluster(3)
  const [a, b, c] = tc.clusters as [Cluster, Cluster, Cluster]
  const heard: unknown[] = []
  b.subscribe('jobs', (payload, { from }) => heard.push([from, payload]))
  c.subscribe('jobs', () => t.fail())
  a.subscribe('jobs', () => t.fail())
  tc.loss(0.2)
  const numbers = Array.from({ length: 50 }, (_, n) => n)
  await Promise.all(numbers.map((n) => a.send('m1', 'jobs', n, { timeoutMs: 20_000 })))
  tc.heal()
  await sleep(300)
  heard.sort((x, y) => Number((x as unknown[])[1]) - Number((y as unknown[])[1]))
  t.deepEqual(
    heard,
    numbers.map((n) => ['m0', n]),
  )
})

test('300 kB; to oneself; to a member that does not subscribe', async (t) => {
  await using tc = await createTestCluster(2)
  const [a, b] = tc.clusters as [Cluster, Cluster]
  const lengths: number[] = []
  b.subscribe('t', (payload) => lengths.push((payload as string).length))
  await a.send('m1', 't', 'x'.repeat(300_000), { timeoutMs: 30_000 })
  const own = new Promise((resolve) => a.subscribe('own', (payload, { from }) => resolve([from, payload])))
  await a.send('m0', 'own', { to: 'me' })
  t.deepEqual(await own, ['m0', { to: 'me' }])
  await a.send('m1', 'nobody listens', 1)
  await sleep(50)
  t.deepEqual(lengths, [300_000])
})

test('an unknown member, one that left, and one that does not answer', async (t) => {
  await using tc = await createTestCluster(3)
  const [a] = tc.clusters as [Cluster]
  await t.throwsAsync(a.send('nobody', 't', 1), { code: 'ERR_HEARSAY_UNKNOWN_MEMBER' })
  tc.isolate(1)
  const began = performance.now()
  await t.throwsAsync(a.send('m1', 't', 1, { timeoutMs: 400 }), {
    code: 'ERR_HEARSAY_TIMEOUT',
    message: 'm1 has not confirmed within 400 ms',
  })
  t.true(performance.now() - began >= 390)
  tc.heal()
  await tc.clusters[2]?.leave()
  await t.throwsAsync(a.send('m2', 't', 1), { code: 'ERR_HEARSAY_UNKNOWN_MEMBER' })
})

test('wrong arguments, abort and stop', async (t) => {
  const tc = await createTestCluster(2)
  const [a] = tc.clusters as [Cluster]
  await t.throwsAsync(a.send('m1', 't'.repeat(257), 1), { code: 'ERR_HEARSAY_TOPIC' })
  await t.throwsAsync(a.send('m1', 't', 'x'.repeat(1 << 20)), { code: 'ERR_HEARSAY_VALUE' })
  await t.throwsAsync(a.send('m1', 't', undefined), { code: 'ERR_HEARSAY_CODEC' })
  await t.throwsAsync(a.send(1 as never, 't', 1), { code: 'ERR_HEARSAY_ARGUMENT' })
  await t.throwsAsync(a.send('m1', 't', 1, { timeoutMs: 0.5 }), { message: /^send\.timeoutMs must be/ })
  await t.throwsAsync(a.send('m1', 't', 1, { signal: AbortSignal.abort() }), { name: 'AbortError' })
  tc.isolate(1)
  const controller = new AbortController()
  const aborted = a.send('m1', 't', 1, { timeoutMs: 60_000, signal: controller.signal })
  controller.abort('enough')
  const error = await t.throwsAsync(aborted, { name: 'AbortError' })
  t.is(error?.cause, 'enough')
  const pending = a.send('m1', 't', 1, { timeoutMs: 60_000 })
  const rejected = t.throwsAsync(pending, { code: 'ERR_HEARSAY_STOPPED' })
  await tc.stopAll()
  await rejected
  await t.throwsAsync(a.send('m1', 't', 1), { code: 'ERR_HEARSAY_STOPPED' })
})
