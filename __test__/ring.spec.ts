import { once } from 'node:events'
import test from 'ava'
import { type Cluster, type ClusterRing, HashRing, type RingChange } from '../ts/index.js'
import { createTestCluster } from '../ts/testing.js'

const fast = {
  failureDetector: { heartbeatIntervalMs: 200, patienceMs: 500, minStdDevMs: 20 },
  antiEntropy: { settleMs: 1_000, confirmMs: 100 },
}
const names = (count: number, prefix = 'n') =>
  Array.from({ length: count }, (_, i) => ({ name: `${prefix}${i}` }))
const keys = (count: number) => Array.from({ length: count }, (_, i) => `user:${i}`)
const owners = (ring: { owner(key: string): string | undefined }) => keys(2_000).map((key) => ring.owner(key))

test('lookups here are those of the core, for keys of every length and alphabet', (t) => {
  for (const [count, virtualNodes] of [
    [1, 1],
    [2, 1],
    [7, 3],
    [50, 100],
  ] as const) {
    const members = names(count)
    const here = new HashRing(members, { virtualNodes })
    // One more name than is walked to here is looked up by the addon.
    const wide = new HashRing(members, { virtualNodes, zoneAware: true })
    const alphabet = ['a', '0', 'é', '漢', '😀', '\0', '\ud800']
    let compared = 0
    for (let length = 0; length < 60; length++) {
      for (const letter of alphabet) {
        const key = `${length}`.slice(0, length) + letter.repeat(length)
        const three = here.owners(key, 3).join()
        if (here.owner(key) !== wide.owners(key, 1)[0] || three !== wide.owners(key, 3).join()) t.fail(key)
        compared++
      }
    }
    for (const key of ['k'.repeat(335), 'k'.repeat(336), 'k'.repeat(5_000), 'ü'.repeat(5_000)]) {
      t.is(here.owner(key), wide.owners(key, 1)[0], `${key[0]} x ${key.length}`)
    }
    t.is(compared, 60 * alphabet.length)
  }
})

test('shares deviate by 1/sqrt(V); a join moves its share and nothing between others', (t) => {
  const [count, virtualNodes, rounds] = [100, 100, 12]
  const all = keys(100_000)
  let [deviation, moved] = [0, 0]
  for (let round = 0; round < rounds; round++) {
    const ring = new HashRing(names(count, `${round}/`), { virtualNodes })
    const held = new Map<string, number>()
    const before = all.map((key) => ring.owner(key) ?? '')
    for (const name of before) held.set(name, (held.get(name) ?? 0) + 1)
    const mean = all.length / count
    const squares = [...held.values()].map((keys) => (keys / mean - 1) ** 2)
    // What drawing so few keys adds is taken off: 1/mean.
    deviation += Math.sqrt(squares.reduce((sum, x) => sum + x, 0) / count - 1 / mean) / rounds
    t.true(ring.add({ name: 'joiner' }))
    let between = 0
    for (const [i, key] of all.entries()) {
      const after = ring.owner(key)
      if (after === before[i]) continue
      moved++
      if (after !== 'joiner') between++
    }
    t.is(between, 0)
    t.true(ring.remove('joiner'))
    t.true(all.every((key, i) => ring.owner(key) === before[i]))
  }
  const want = 1 / Math.sqrt(virtualNodes)
  const part = moved / all.length / rounds
  t.log(`sd ${deviation.toFixed(4)}, 1/sqrt(V) ${want}; moved ${part.toFixed(5)}, 1/(N+1) ${1 / (count + 1)}`)
  t.true(Math.abs(deviation / want - 1) < 0.05, `${deviation}`)
  t.true(Math.abs(part * (count + 1) - 1) < 0.1, `${part}`)
})

test('versions are those of the contents; weights and zones', (t) => {
  const a = new HashRing([{ name: 'a' }, { name: 'b', weight: 2 }, { name: 'c' }])
  const b = new HashRing([{ name: 'c' }, { name: 'x' }, { name: 'a' }])
  t.not(a.version, b.version)
  t.true(b.remove('x'))
  t.true(b.add({ name: 'b', weight: 2 }))
  t.is(a.version, b.version)
  t.false(b.add({ name: 'b', weight: 2 }))
  t.false(b.remove('x'))
  t.is(b.size, 3)
  t.deepEqual(owners(a), owners(b))
  const share = owners(a).filter((name) => name === 'b').length / 2_000
  t.true(share > 0.35 && share < 0.65, `${share}`)
  const zones = { a: 'x', b: 'x', c: 'x', d: 'y' }
  const spread = new HashRing(
    Object.entries(zones).map(([name, zone]) => ({ name, zone })),
    { zoneAware: true },
  )
  for (const key of keys(200)) {
    const two = spread.owners(key, 2)
    t.true(two.includes('d'), `${two}`)
    t.is(two[0], spread.owner(key))
    t.is(new Set(spread.owners(key, 9)).size, 4)
  }
  const empty = new HashRing()
  t.deepEqual([empty.owner('k'), empty.owners('k', 3), empty.size], [undefined, [], 0])
})

test('wrong arguments name what is wrong and change nothing', (t) => {
  const option = { code: 'ERR_HEARSAY_OPTION' }
  const argument = { code: 'ERR_HEARSAY_ARGUMENT' }
  t.throws(() => new HashRing([], { virtualNodes: 0 }), { ...option, message: /^virtualNodes must be/ })
  t.throws(() => new HashRing([], { vnodes: 1 } as never), {
    ...option,
    message: /did you mean virtualNodes/,
  })
  t.throws(() => new HashRing(['a'] as never), { ...option, message: /^members\[0\]/ })
  t.throws(() => new HashRing(5 as never), argument)
  t.throws(() => new HashRing([{ name: 'a', weight: 1e9 }]), argument)
  const ring = new HashRing([{ name: 'a' }])
  const { version } = ring
  for (const weight of [0, -1, Number.NaN, Number.POSITIVE_INFINITY]) {
    t.throws(() => ring.add({ name: 'b', weight }), { ...option, message: /^member\.weight/ })
  }
  t.throws(() => ring.add({ name: '' }), option)
  t.throws(() => ring.add({} as never), option)
  t.throws(() => ring.owner(1 as never), argument)
  t.throws(() => ring.owners('k', -1), argument)
  t.throws(() => ring.owners('k', undefined as never), argument)
  t.throws(() => ring.remove(1 as never), argument)
  t.deepEqual([ring.version, ring.size, ring.has('b')], [version, 1, false])
})

test('cluster.ring: filter, weights by tag, joins, tags, leaves, close and stop', async (t) => {
  await using tc = await createTestCluster(4, (i) => ({
    ...fast,
    tags: { role: i === 3 ? 'api' : 'db', w: i === 0 ? '3' : 'heavy', zone: `z${i}` },
  }))
  const [a, b, , d] = tc.clusters as [Cluster, Cluster, Cluster, Cluster]
  await tc.converged()
  t.throws(() => a.ring({ vnodes: 1 } as never), {
    code: 'ERR_HEARSAY_OPTION',
    message: /^unknown option ring\.vnodes/,
  })
  const options = { virtualNodes: 50, filter: { tags: { role: 'db' } }, weightTag: 'w' }
  const [ring, other, whole] = [a.ring(options), b.ring(options), a.ring()]
  t.deepEqual([ring.size, other.size, whole.size], [3, 3, 4])
  t.is(ring.version, other.version)
  t.deepEqual(owners(ring), owners(other))
  const alone = new HashRing([{ name: 'm0', weight: 3 }, { name: 'm1' }, { name: 'm2' }], {
    virtualNodes: 50,
  })
  t.is(ring.version, alone.version, 'the ring of the names themselves')
  t.false(owners(ring).includes('m3'))

  const changes: RingChange[] = []
  ring.on('change', (change) => changes.push(change))
  const next = () => once(ring, 'change') as Promise<[RingChange]>
  let change = next()
  let elsewhere = once(other, 'change') as Promise<[RingChange]>
  await d.updateTags({ role: 'db' })
  t.like((await change)[0], { added: ['m3'], removed: [], version: ring.version })
  t.is((await elsewhere)[0].version, ring.version)
  // A zone is nothing to a ring that does not look at zones.
  const seen = once(a, 'memberUpdated')
  await d.updateTags({ role: 'db', zone: 'elsewhere' })
  await seen
  t.is(changes.length, 1)
  change = next()
  await d.updateTags({ role: 'db', w: '2' })
  t.like((await change)[0], { added: [], removed: [], version: ring.version })
  change = next()
  elsewhere = once(other, 'change') as Promise<[RingChange]>
  await d.leave()
  t.like((await change)[0], { added: [], removed: ['m3'], version: alone.version })
  await elsewhere
  t.is(other.version, alone.version)
  t.is(changes.length, 3)

  // Whoever hears of an event finds the ring as it is after it.
  const joined = once(a, 'memberJoined').then(() => whole.size)
  ring.close()
  ring.close()
  await tc.add({ name: 'late', tags: { role: 'db' } })
  t.is(await joined, 4)
  t.is(changes.length, 3)
  t.is(ring.owner('user:1'), alone.owner('user:1'), 'as it was when it was closed')
  await a.stop()
  t.is(whole.size, 4)
  t.is(typeof whole.owner('user:1'), 'string')
  t.throws(() => a.ring(), { code: 'ERR_HEARSAY_STOPPED' })
})

test('a suspicion moves nothing; a death, a partition and its heal are one change per member each', async (t) => {
  await using tc = await createTestCluster(5, fast)
  await tc.converged()
  const rings = tc.clusters.map((cluster) => cluster.ring({ virtualNodes: 20 }))
  const changes = rings.map((ring) => {
    const list: RingChange[] = []
    ring.on('change', (change) => list.push(change))
    return list
  })
  const whole = rings[0]?.version ?? ''
  t.is(new Set(rings.map(({ version }) => version)).size, 1)
  const before = owners(rings[0] as ClusterRing)

  const divided = Promise.all(
    tc.clusters.map(async (cluster, i) => {
      while (cluster.size > (i < 2 ? 2 : 3)) await once(cluster, 'memberDied')
    }),
  )
  const suspected = once(tc.clusters[0] as Cluster, 'memberSuspected').then(() => rings[0]?.version)
  tc.partition([0, 1], [2, 3, 4])
  t.is(await suspected, whole, 'a suspect stays on the ring')
  await divided
  t.is(rings[0]?.version, rings[1]?.version)
  t.is(rings[2]?.version, rings[4]?.version)
  t.not(rings[0]?.version, rings[2]?.version)

  tc.heal()
  await tc.converged({ timeoutMs: 30_000 })
  for (const [i, ring] of rings.entries()) {
    t.is(ring.version, whole, `m${i}`)
    t.deepEqual(owners(ring), before)
    const away = i < 2 ? ['m2', 'm3', 'm4'] : ['m0', 'm1']
    const list = changes[i] ?? []
    // Each one who went is removed once and added once, and no event is empty or a repetition.
    t.deepEqual(list.flatMap(({ removed }) => removed).sort(), away, `m${i}`)
    t.deepEqual(list.flatMap(({ added }) => added).sort(), away, `m${i}`)
    t.true(list.every(({ added, removed }) => added.length + removed.length > 0))
    t.is(
      new Set([whole, ...list.map(({ version }) => version)]).size,
      new Set(list.map((c) => c.version)).size,
    )
    t.is(list.at(-1)?.version, whole)
  }
})
