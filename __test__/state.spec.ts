import test from 'ava'
import { Cluster, type StateChange } from '../ts/index.js'
import { createTestCluster } from '../ts/testing.js'

interface Schema {
  state: { [key: `flags/${string}`]: { on: boolean } } & { leader: string }
}

async function take<T>(from: AsyncIterable<T>, count: number): Promise<T[]> {
  const items: T[] = []
  for await (const item of from) {
    items.push(item)
    if (items.length === count) break
  }
  return items
}

test('set, get, has, delete, size', async (t) => {
  await using cluster = await Cluster.start()
  const { state } = cluster
  const first = state.set('a', { n: 1, list: [null, 'x'] })
  t.regex(first.version, /^[0-9a-f]{32}$/)
  t.is(first.backlogged, false)
  t.deepEqual(state.get('a'), { n: 1, list: [null, 'x'] })
  const second = state.set('a', 'other')
  t.true(first.version < second.version)
  t.is(state.get('a'), 'other')
  t.true(state.has('a'))
  t.is(state.size, 1)
  t.true(state.delete('a'))
  t.false(state.delete('a'))
  t.false(state.has('a'))
  t.is(state.get('a'), undefined)
  t.is(state.size, 0)
  state.set('a', null)
  t.is(state.get('a'), null)
  t.true(state.has('a'))
})

test('writes beyond what the budget carries are told backlogged and counted', async (t) => {
  await using tc = await createTestCluster(2, { bandwidth: { bytesPerSecondMax: 10_000 } })
  const [writer, other] = tc.clusters
  if (writer === undefined || other === undefined) return t.fail()
  t.false(writer.state.set('first', 1).backlogged)
  let told = 0
  // 4,096 own entries may wait for their first leave.
  for (let n = 0; n < 4_300; n++) if (writer.state.set(`k${n}`, n).backlogged) told++
  t.true(told > 0 && told < 1_000, `${told}`)
  t.is(writer.metrics().rumors.unflushedDropped, told)
  t.true(writer.broadcast('t', 1).backlogged)
})

test('keys and entries by prefix, in key order, over many pages', async (t) => {
  await using cluster = await Cluster.start()
  const { state } = cluster
  const names = Array.from({ length: 2_500 }, (_, i) => `n/${String(i).padStart(5, '0')}`)
  for (const name of [...names].reverse()) state.set(name, name.length)
  state.set('m', 0)
  state.set('o', 0)
  t.deepEqual(state.keys({ prefix: 'n/' }), names)
  t.deepEqual(state.keys(), ['m', ...names, 'o'])
  t.deepEqual(
    state.entries({ prefix: 'n/0000' }),
    names.slice(0, 10).map((name) => [name, 7]),
  )
  t.deepEqual(state.entries({ prefix: 'nowhere' }), [])
  t.is(state.size, 2_502)
  // A page holds 1,024 keys and about 1 MiB.
  t.is(state.keys({ prefix: 'n/00' }).length, 1_000)
  for (let i = 1_000; i < 1_024; i++) state.set(`n/00${i}`, 0)
  t.is(state.keys({ prefix: 'n/00' }).length, 1_024)
  for (let i = 0; i < 5; i++) state.set(`large/${i}`, 'x'.repeat(600_000))
  t.deepEqual(
    state.entries({ prefix: 'large/' }).map(([key, value]) => [key, (value as string).length]),
    [0, 1, 2, 3, 4].map((i) => [`large/${i}`, 600_000]),
  )
})

test('limits and wrong arguments name what is wrong', async (t) => {
  await using cluster = await Cluster.start({ limits: { valueBytesMax: 100, keyBytesMax: 10 } })
  const { state } = cluster
  t.throws(() => state.set('k', 'x'.repeat(99)), {
    code: 'ERR_HEARSAY_VALUE',
    message: /at most 100 bytes, got 101/,
  })
  t.throws(() => state.set('k'.repeat(11), 1), { code: 'ERR_HEARSAY_KEY', message: /1\.\.10 bytes, got 11/ })
  t.throws(() => state.set('', 1), { code: 'ERR_HEARSAY_KEY' })
  t.throws(() => state.set('\0k', 1), { code: 'ERR_HEARSAY_KEY' })
  t.throws(() => state.set('\ud800', 1), { code: 'ERR_HEARSAY_ARGUMENT' })
  t.throws(() => state.get(1 as never), { code: 'ERR_HEARSAY_ARGUMENT' })
  t.throws(() => state.set('k', 1, { ttlMs: 0 }), { code: 'ERR_HEARSAY_ARGUMENT', message: /^ttlMs must be/ })
  t.throws(() => state.set('k', 1, { ttl: 5 } as never), {
    message: 'unknown option ttl; did you mean ttlMs?',
  })
  t.throws(() => state.keys({ prefixes: '' } as never), {
    message: 'unknown option prefixes; did you mean prefix?',
  })
  t.is(state.size, 0)
})

test('a full store refuses new keys at the call, and the member is unhealthy', async (t) => {
  await using cluster = await Cluster.start({ limits: { entriesMax: 2 } })
  const { state } = cluster
  const first = state.set('a', 1).version
  state.set('b', 1)
  t.throws(() => state.set('c', 1), { code: 'ERR_HEARSAY_STORE_FULL' })
  t.deepEqual(cluster.health(), { healthy: false, reasons: ['the store is full: new keys are refused'] })
  t.true(state.set('a', 2).version > first)
  t.deepEqual(state.keys(), ['a', 'b'])
})

test('json refuses what it would lose', async (t) => {
  await using cluster = await Cluster.start()
  const { state } = cluster
  const cycle: { self?: unknown } = {}
  cycle.self = cycle
  for (const bad of [
    undefined,
    () => 1,
    Symbol('s'),
    1n,
    cycle,
    { deep: [{ f() {} }] },
    [undefined],
    { u: undefined },
  ]) {
    t.throws(() => state.set('k', bad), {
      code: 'ERR_HEARSAY_CODEC',
      message: /^the value of 'k' cannot be encoded/,
    })
  }
  t.false(state.has('k'))
  state.set('k', { at: new Date(0) })
  t.deepEqual(state.get('k'), { at: '1970-01-01T00:00:00.000Z' })
})

test('bytes and a codec of one’s own', async (t) => {
  await using bytes = await Cluster.start({ codec: 'bytes' })
  bytes.state.set('k', Uint8Array.of(0, 255, 1))
  t.deepEqual(bytes.state.get('k'), Uint8Array.of(0, 255, 1))
  t.deepEqual(bytes.state.entries(), [['k', Uint8Array.of(0, 255, 1)]])
  t.throws(() => bytes.state.set('k', 'text'), { code: 'ERR_HEARSAY_CODEC' })

  const codec = {
    encode: (value: unknown) => Buffer.from(String(value).toUpperCase()),
    decode: (encoded: Uint8Array) => {
      if (encoded[0] === 88) throw new Error('begins with X')
      return Buffer.from(encoded).toString()
    },
  }
  await using own = await Cluster.start({ codec })
  own.state.set('k', 'abc')
  t.is(own.state.get('k'), 'ABC')
  own.state.set('x', 'xyz')
  t.throws(() => own.state.get('x'), {
    code: 'ERR_HEARSAY_CODEC',
    message: "the value of 'x' cannot be decoded: begins with X",
  })
})

test('a value of a megabyte comes back whole', async (t) => {
  await using cluster = await Cluster.start({ codec: 'bytes' })
  const value = Buffer.alloc(1 << 20, 'ab')
  const changes = cluster.state.watch()
  cluster.state.set('big', value)
  t.is(Buffer.compare(cluster.state.get('big') as Uint8Array, value), 0)
  const [change] = await take(changes, 1)
  t.is(Buffer.compare(change?.value as Uint8Array, value), 0)
})

test('watch: own writes, by prefix, in order per key', async (t) => {
  await using cluster = await Cluster.start({ name: 'writer' })
  const { state } = cluster
  const changes = state.watch('a/')
  const versions = [state.set('a/1', 1).version]
  state.set('b/1', 1)
  versions.push(state.set('a/1', 2).version)
  state.delete('a/1')
  const seen = await take(changes, 3)
  t.deepEqual(
    seen.map(({ type, key, value, origin }) => [type, key, value, origin]),
    [
      ['set', 'a/1', 1, 'writer'],
      ['set', 'a/1', 2, 'writer'],
      ['delete', 'a/1', undefined, 'writer'],
    ],
  )
  t.deepEqual(
    seen.slice(0, 2).map((change) => change.version),
    versions,
  )
  t.true((seen[1]?.version ?? '') < (seen[2]?.version ?? ''))
})

test('watch: an entry whose lifetime ends', async (t) => {
  await using cluster = await Cluster.start()
  const changes = cluster.state.watch()
  cluster.state.set('k', 'v', { ttlMs: 500 })
  const [set, expire] = await take(changes, 2)
  t.is(set?.type, 'set')
  t.like(expire, { type: 'expire', key: 'k', value: undefined })
  t.false(cluster.state.has('k'))
})

test('a blocked reader gets the newest value of every key, and is told', async (t) => {
  await using cluster = await Cluster.start({ codec: 'bytes' })
  const { state } = cluster
  const lagged = new Promise<{ source: string; dropped: number }>((resolve) =>
    cluster.once('lagged', resolve),
  )
  const changes = state.watch()
  const value = new Uint8Array(4)
  const view = new DataView(value.buffer)
  const writes = 20_000
  for (let i = 0; i < writes; i++) {
    view.setUint32(0, i)
    state.set(`k${i % 10}`, value)
  }
  const last = new Map<string, number>()
  let count = 0
  for await (const change of changes) {
    const now = Buffer.from(change.value as Uint8Array).readUInt32BE()
    t.true(now > (last.get(change.key) ?? -1), 'never goes back')
    last.set(change.key, now)
    count++
    if ([...last.values()].filter((n) => n >= writes - 10).length === 10) break
  }
  const lag = await lagged
  t.is(lag.source, 'watch')
  t.true(lag.dropped > 0 && count + lag.dropped <= writes)
})

test('watch ends with the signal and with the cluster', async (t) => {
  const cluster = await Cluster.start()
  const control = new AbortController()
  const aborted = take(cluster.state.watch('', { signal: control.signal }), 1)
  const ended = take(cluster.state.watch(), 1)
  control.abort(new Error('no more'))
  t.like(await t.throwsAsync(aborted, { name: 'AbortError' }), { cause: control.signal.reason })
  await cluster.stop()
  t.deepEqual(await ended, [])
  t.throws(() => cluster.state.get('k'), { code: 'ERR_HEARSAY_STOPPED' })
  t.throws(() => cluster.state.set('k', 1), { code: 'ERR_HEARSAY_STOPPED' })
  t.throws(() => cluster.state.watch(), { code: 'ERR_HEARSAY_STOPPED' })
})

test('a write is read and watched on every other member', async (t) => {
  await using tc = await createTestCluster<Schema>(3)
  const [a, b, c] = tc.clusters as [Cluster<Schema>, Cluster<Schema>, Cluster<Schema>]
  const watches = [b, c].map((cluster) => take<StateChange>(cluster.state.watch('flags/'), 1))
  const { version } = a.state.set('flags/beta', { on: true })
  for (const [change] of await Promise.all(watches)) {
    t.deepEqual(change, { type: 'set', key: 'flags/beta', value: { on: true }, version, origin: 'm0' })
  }
  t.is(b.state.get('flags/beta')?.on, true)
  t.true(c.state.delete('flags/beta'))
  await tc.converged()
  t.false(a.state.has('flags/beta'))
})

test('spread resolves when so many others hold this version or a newer one', async (t) => {
  await using tc = await createTestCluster(3)
  const [a, b] = tc.clusters as [Cluster, Cluster]
  t.is(a.metrics().talk.pollsSent, 0, 'nothing is sent unless somebody waits')
  const first = a.state.set('k', 1)
  await a.state.spread('k', { version: first.version, members: 2 })
  for (const cluster of tc.clusters) t.is(cluster.state.get('k'), 1)
  b.state.delete('k')
  await b.state.spread('k', { members: 2 })
  for (const cluster of tc.clusters) t.false(cluster.state.has('k'), 'a delete counts')
  await b.state.spread('k', { version: first.version, members: 2 })
  const replaced = a.state.set('k', 2)
  a.state.set('k', 3)
  await a.state.spread('k', { version: replaced.version, members: 2 })
  t.is(b.state.get('k'), 3)

  tc.isolate(2)
  a.state.set('k', 4)
  await a.state.spread('k', { members: 1 })
  await t.throwsAsync(a.state.spread('k', { members: 2, timeoutMs: 700 }), {
    code: 'ERR_HEARSAY_TIMEOUT',
    message: "1 of 2 others confirmed 'k' within 700 ms",
  })
  tc.heal()
  await a.state.spread('k', { members: 2, timeoutMs: 20_000 })
})

test('spread: wrong arguments, abort and stop', async (t) => {
  const cluster = await Cluster.start()
  const { state } = cluster
  await t.throwsAsync(state.spread('k', { members: 1 }), { code: 'ERR_HEARSAY_KEY', message: /known/ })
  await t.throwsAsync(state.spread('', { members: 1 }), { code: 'ERR_HEARSAY_KEY' })
  state.set('k', 1)
  await t.throwsAsync(state.spread('k', {} as never), { message: 'spread.members is missing' })
  await t.throwsAsync(state.spread('k', { members: 0 }), { message: /^spread\.members must be/ })
  await t.throwsAsync(state.spread('k', { members: 1, version: 'x' }), {
    message: /^spread\.version must be/,
  })
  await t.throwsAsync(state.spread('k', { members: 1, signal: AbortSignal.abort() }), { name: 'AbortError' })
  const controller = new AbortController()
  const aborted = state.spread('k', { members: 1, signal: controller.signal, timeoutMs: 60_000 })
  controller.abort()
  await t.throwsAsync(aborted, { name: 'AbortError' })
  const pending = state.spread('k', { members: 1, timeoutMs: 60_000 })
  const rejected = t.throwsAsync(pending, { code: 'ERR_HEARSAY_STOPPED' })
  await cluster.stop()
  await rejected
  await t.throwsAsync(state.spread('k', { members: 1 }), { code: 'ERR_HEARSAY_STOPPED' })
})
