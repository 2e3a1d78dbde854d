import { getEventListeners, setMaxListeners } from 'node:events'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test from 'ava'
import { Cluster, simulate } from '../ts/index.js'
import { createTestCluster } from '../ts/testing.js'

interface Tools {
  /** Alone; answers nothing. */
  cluster: Cluster
  /** Cut off from `cluster`, and thought alive by it. */
  peer: Cluster
  signal: AbortSignal
}

/** Everything that takes a signal, each waiting for what does not come. */
const WAITS: Record<string, (tools: Tools) => Promise<unknown>> = {
  'Cluster.start': ({ signal }) => Cluster.start({ seeds: ['127.0.0.1:9'], joinTimeoutMs: 600_000, signal }),
  join: ({ cluster, signal }) => cluster.join(['127.0.0.1:9'], { signal }),
  waitFor: ({ cluster, signal }) => cluster.waitFor({ members: 9, signal }),
  events: ({ cluster, signal }) => cluster.events({ signal }).next(),
  'state.watch': ({ cluster, signal }) => cluster.state.watch('nothing/', { signal }).next(),
  'state.spread': ({ cluster, signal }) => {
    cluster.state.set('k', 1)
    return cluster.state.spread('k', { members: 9, timeoutMs: 600_000, signal })
  },
  send: ({ cluster, peer, signal }) =>
    cluster.send(peer.self.name, 'jobs', 1, { timeoutMs: 600_000, signal }),
  query: ({ cluster, signal }) => cluster.query('disk-free', 1, { timeoutMs: 600_000, signal }).next(),
  'broadcast().reached': ({ cluster, signal }) =>
    cluster.broadcast('jobs', 1).reached({ timeoutMs: 600_000, signal }),
  simulate: ({ signal }) => simulate({ members: 500, scenario: { kind: 'crash', crashes: 1_000 }, signal }),
}

for (const [name, wait] of Object.entries(WAITS)) {
  test(`${name}: an aborted wait rejects with the reason and leaves nothing behind`, async (t) => {
    // Patience so long that the one cut off is still believed in at the end.
    await using tc = await createTestCluster(2, { failureDetector: { patienceMs: 60_000 } })
    const [cluster, peer] = tc.clusters as [Cluster, Cluster]
    cluster.respond('disk-free', () => new Promise(() => {}))
    tc.cut(0, 1)
    const early = { cause: 'early' }
    const before = AbortSignal.abort('early')
    const rejected = await t.throwsAsync(async () => wait({ cluster, peer, signal: before }), {
      name: 'AbortError',
    })
    t.like(rejected, early)
    t.is(getEventListeners(before, 'abort').length, 0)

    const control = new AbortController()
    const reason = { why: 'enough' }
    const waiting = t.throwsAsync(wait({ cluster, peer, signal: control.signal }), {
      name: 'AbortError',
    })
    const late = await Promise.race([
      waiting,
      new Promise<'waits'>((resolve) => setTimeout(resolve, 100, 'waits')),
    ])
    t.is(late, 'waits', 'not before the signal')
    t.true(getEventListeners(control.signal, 'abort').length > 0)
    const at = performance.now()
    control.abort(reason)
    const error = await waiting
    t.is(error?.cause, reason)
    t.true(performance.now() - at < 10_000)
    t.is(getEventListeners(control.signal, 'abort').length, 0)
    t.true(cluster.health().healthy, 'the cluster is whole')
    await cluster.waitFor({ members: 1 })
  })
}

test('state.flush and converged, which end soon by themselves, reject too', async (t) => {
  const folder = await mkdtemp(join(tmpdir(), 'hearsay-abort-'))
  try {
    await using cluster = await Cluster.start({ storage: { path: folder } })
    const control = new AbortController()
    cluster.state.set('k', 1)
    const flushing = t.throwsAsync(cluster.state.flush({ signal: control.signal }), { name: 'AbortError' })
    control.abort('enough')
    t.is((await flushing)?.cause, 'enough')
    t.is(getEventListeners(control.signal, 'abort').length, 0)
    await cluster.state.flush()

    await using tc = await createTestCluster(2)
    tc.partition([0], [1])
    tc.clusters[0]?.state.set('k', 1)
    const looking = new AbortController()
    const wait = t.throwsAsync(tc.converged({ timeoutMs: 600_000, signal: looking.signal }), {
      name: 'AbortError',
    })
    looking.abort('enough')
    t.is((await wait)?.cause, 'enough')
    t.is(getEventListeners(looking.signal, 'abort').length, 0)
  } finally {
    await rm(folder, { recursive: true, force: true })
  }
})

test('aborted waits make room for others: many more than may wait at once', async (t) => {
  await using tc = await createTestCluster(2, { failureDetector: { patienceMs: 60_000 } })
  const [cluster, peer] = tc.clusters as [Cluster, Cluster]
  cluster.respond('disk-free', () => new Promise(() => {}))
  tc.cut(0, 1)
  for (const name of ['state.spread', 'query', 'broadcast().reached'] as const) {
    for (let round = 0; round < 12; round++) {
      const { signal, abort } = control()
      const waits = Array.from({ length: 100 }, () =>
        t.throwsAsync(WAITS[name]?.({ cluster, peer, signal }) ?? Promise.resolve(), { name: 'AbortError' }),
      )
      abort()
      await Promise.all(waits)
      t.is(getEventListeners(signal, 'abort').length, 0)
    }
  }
})

function control(): { signal: AbortSignal; abort(): void } {
  const control = new AbortController()
  setMaxListeners(0, control.signal)
  return { signal: control.signal, abort: () => control.abort() }
}

test('a signal that outlives its waits gathers nothing', async (t) => {
  await using cluster = await Cluster.start()
  const { signal } = new AbortController()
  for (let i = 0; i < 20; i++) {
    await cluster.waitFor({ members: 1, signal })
    await t.throwsAsync(cluster.waitFor({ members: 2, timeoutMs: 1, signal }), {
      code: 'ERR_HEARSAY_TIMEOUT',
    })
    await cluster.send(cluster.self.name, 'jobs', i, { signal })
    for await (const _ of cluster.query('nobody', i, { signal }));
    await cluster.state.watch('', { signal }).return?.()
    await cluster.events({ signal }).return?.()
    cluster.state.set('k', i)
    await t.throwsAsync(cluster.state.spread('k', { members: 1, timeoutMs: 1, signal }))
  }
  t.is(getEventListeners(signal, 'abort').length, 0)
  const started = await Cluster.start({ signal })
  await started.stop()
  t.is(getEventListeners(signal, 'abort').length, 0)
})
