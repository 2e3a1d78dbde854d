import { once } from 'node:events'
import { setTimeout as sleep } from 'node:timers/promises'
import test from 'ava'
import { Cluster, type Lagged } from '../ts/index.js'
import { createTestCluster } from '../ts/testing.js'

async function until(done: () => boolean, withinMs = 10_000): Promise<void> {
  const end = performance.now() + withinMs
  while (!done()) {
    if (performance.now() > end) throw new Error(`not within ${withinMs} ms`)
    await sleep(10)
  }
}

test('every member gets each broadcast once, in the order of its sender, the sender too', async (t) => {
  await using tc = await createTestCluster(3)
  const heard = tc.clusters.map(() => [] as string[])
  for (const [i, cluster] of tc.clusters.entries()) {
    cluster.subscribe('t', (payload, { from }) => heard[i]?.push(`${from}:${payload}`))
    cluster.subscribe('other', () => t.fail())
  }
  for (let n = 0; n < 50; n++) {
    t.is(tc.clusters[0]?.broadcast('t', n).backlogged, false)
    tc.clusters[1]?.broadcast('t', n)
  }
  await until(() => heard.every((list) => list.length >= 100))
  await sleep(300)
  for (const list of heard) {
    t.is(list.length, 100)
    for (const from of ['m0:', 'm1:']) {
      const mine = list.filter((text) => text.startsWith(from))
      t.deepEqual(
        mine,
        Array.from({ length: 50 }, (_, n) => `${from}${n}`),
      )
    }
  }
  t.is(tc.clusters[2]?.state.size, 0)
  t.is(tc.clusters[2]?.metrics().talk.broadcastsDelivered, 100)
})

test('several handlers, each until it is ended; none from before', async (t) => {
  await using tc = await createTestCluster(2)
  const [a, b] = tc.clusters as [Cluster, Cluster]
  await a.broadcast('t', 'before').reached()
  const heard: string[] = []
  const offs = ['x', 'y'].map((name) => b.subscribe('t', (payload) => heard.push(`${name} ${payload}`)))
  await a.broadcast('t', 1).reached()
  await until(() => heard.length === 2)
  offs[0]?.()
  offs[0]?.()
  await a.broadcast('t', 2).reached()
  await until(() => heard.length === 3)
  offs[1]?.()
  await a.broadcast('t', 3).reached()
  b.subscribe('t', (payload) => heard.push(`z ${payload}`))
  await a.broadcast('t', 4).reached()
  await until(() => heard.length === 4)
  t.deepEqual(heard, ['x 1', 'y 1', 'y 2', 'z 4'])
})

test('reached counts those that hold it, and never rejects for slowness', async (t) => {
  await using tc = await createTestCluster(3)
  const [a] = tc.clusters as [Cluster]
  t.deepEqual(await a.broadcast('t', 1).reached(), { members: 3, of: 3 })
  tc.isolate(2)
  const sent = a.broadcast('t', 2)
  const began = performance.now()
  t.deepEqual(await sent.reached({ timeoutMs: 700 }), { members: 2, of: 3 })
  t.true(performance.now() - began >= 690)
  tc.heal()
  t.deepEqual(await sent.reached({ timeoutMs: 15_000 }), { members: 3, of: 3 })
  await using alone = await Cluster.start()
  t.deepEqual(await alone.broadcast('t', 1).reached(), { members: 1, of: 1 })
})

test('who was cut off gets them after the heal', async (t) => {
  await using tc = await createTestCluster(3)
  const heard: unknown[] = []
  tc.clusters[2]?.subscribe('t', (payload) => heard.push(payload))
  tc.isolate(2)
  for (let n = 0; n < 10; n++) tc.clusters[0]?.broadcast('t', n)
  await sleep(4_000)
  t.deepEqual(heard, [])
  tc.heal()
  await until(() => heard.length === 10, 20_000)
  t.deepEqual(heard, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9])
})

test('a payload of 300 kB, and the small one behind it', async (t) => {
  await using tc = await createTestCluster(3, { codec: 'bytes' })
  const heard: number[] = []
  tc.clusters[2]?.subscribe('t', (payload) => heard.push((payload as Uint8Array).length))
  tc.clusters[0]?.broadcast('t', new Uint8Array(300_000).fill(7))
  tc.clusters[0]?.broadcast('t', new Uint8Array(5))
  await until(() => heard.length === 2, 20_000)
  t.deepEqual(heard, [300_000, 5])
})

test('limits and wrong arguments are named at the call', async (t) => {
  await using cluster = await Cluster.start({ limits: { valueBytesMax: 100 } })
  const topic = { code: 'ERR_HEARSAY_TOPIC', message: /1\.\.256 bytes, got 257/ }
  t.throws(() => cluster.broadcast('t'.repeat(257), 1), topic)
  t.throws(() => cluster.subscribe('t'.repeat(257), () => {}), topic)
  t.throws(() => cluster.broadcast('', 1), { code: 'ERR_HEARSAY_TOPIC' })
  t.throws(() => cluster.broadcast('\ud800', 1), { code: 'ERR_HEARSAY_ARGUMENT' })
  t.throws(() => cluster.subscribe('t', 1 as never), { code: 'ERR_HEARSAY_ARGUMENT' })
  t.throws(() => cluster.broadcast('t', 'x'.repeat(99)), {
    code: 'ERR_HEARSAY_VALUE',
    message: /payload must have at most 100 bytes, got 101/,
  })
  const cycle: { self?: unknown } = {}
  cycle.self = cycle
  for (const bad of [undefined, () => 1, cycle, { deep: [undefined] }]) {
    t.throws(() => cluster.broadcast('t', bad), {
      code: 'ERR_HEARSAY_CODEC',
      message: /^the payload of 't' cannot be encoded/,
    })
  }
  t.is(cluster.metrics().talk.broadcastsSent, 0)
  await t.throwsAsync(cluster.broadcast('t', 1).reached({ timeout: 1 } as never), {
    message: 'unknown option reached.timeout; did you mean reached.timeoutMs?',
  })
})

test('what a handler throws comes up after the others have had theirs', async (t) => {
  await using cluster = await Cluster.start()
  const heard: unknown[] = []
  cluster.subscribe('t', () => {
    throw new Error('from a handler')
  })
  cluster.subscribe('t', (payload) => heard.push(payload))
  const caught: string[] = []
  const listeners = process.listeners('uncaughtException')
  process.removeAllListeners('uncaughtException')
  process.on('uncaughtException', (error) => caught.push(error.message))
  try {
    cluster.broadcast('t', 1)
    await until(() => caught.length > 0)
  } finally {
    process.removeAllListeners('uncaughtException')
    for (const listener of listeners) process.on('uncaughtException', listener)
  }
  t.deepEqual(heard, [1])
  t.deepEqual(caught, ['from a handler'])
  t.is(cluster.size, 1)
})

test('a payload that cannot be decoded is an error event', async (t) => {
  await using tc = await createTestCluster(2, (i) => ({ codec: i === 0 ? 'bytes' : 'json' }))
  const [a, b] = tc.clusters as [Cluster, Cluster]
  b.subscribe('t', () => t.fail())
  const failed = once(b, 'error')
  a.broadcast('t', Uint8Array.of(0xff))
  const [error] = await failed
  t.like(error, { code: 'ERR_HEARSAY_CODEC' })
  t.regex(error.message, /^the payload of 't' from m0 cannot be decoded/)
})

test('a subscriber that blocks the loop for long is told what it missed', async (t) => {
  await using tc = await createTestCluster(2, { bandwidth: { bytesPerSecondMax: 100_000_000 } })
  const [a, b] = tc.clusters as [Cluster, Cluster]
  let heard = 0
  const lags: Lagged[] = []
  b.on('lagged', (lagged) => lags.push(lagged))
  b.subscribe('t', () => heard++)
  a.subscribe('t', () => {})
  // One turn of the loop: nobody reads meanwhile, and both rings hold 8,192.
  const sent = 12_000
  for (let n = 0; n < sent; n++) a.broadcast('t', n)
  const count = (): number => lags.reduce((sum, { dropped }) => sum + dropped, 0)
  await until(() => heard + count() >= sent, 60_000)
  t.is(heard + count(), sent)
  t.true(lags.every(({ source }) => source === 'broadcasts'))
})

test('stop and abort leave nothing pending', async (t) => {
  const tc = await createTestCluster(2)
  const [a] = tc.clusters as [Cluster]
  tc.isolate(1)
  const sent = a.broadcast('t', 1)
  const controller = new AbortController()
  const aborted = sent.reached({ signal: controller.signal })
  controller.abort('enough')
  await t.throwsAsync(aborted, { name: 'AbortError' })
  await t.throwsAsync(sent.reached({ signal: AbortSignal.abort() }), { name: 'AbortError' })
  const pending = sent.reached({ timeoutMs: 60_000 })
  const rejected = t.throwsAsync(pending, { code: 'ERR_HEARSAY_STOPPED' })
  await tc.stopAll()
  await rejected
  t.throws(() => a.broadcast('t', 1), { code: 'ERR_HEARSAY_STOPPED' })
  t.throws(() => a.subscribe('t', () => {}), { code: 'ERR_HEARSAY_STOPPED' })
  await t.throwsAsync(sent.reached(), { code: 'ERR_HEARSAY_STOPPED' })
})
