import { once } from 'node:events'
import { createServer } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import test from 'ava'
import { Cluster, type ClusterEvent, HearsayError, type Member } from '../ts/index.js'
import { createTestCluster } from '../ts/testing.js'

test('alone: self, members, size, phi, root, metrics, health', async (t) => {
  await using cluster = await Cluster.start({ name: 'solo', tags: { zone: 'eu', role: 'db' } })
  const { self } = cluster
  t.regex(self.id, /^[0-9a-f]{16}$/)
  t.regex(self.address, /^127\.0\.0\.1:\d+$/)
  t.like(self, {
    name: 'solo',
    liveness: 'alive',
    incarnation: 0,
    zone: 'eu',
    tags: { zone: 'eu', role: 'db' },
  })
  t.true(Math.abs(self.generation - Date.now()) < 60_000)
  t.deepEqual(cluster.members(), [self])
  t.deepEqual(cluster.member('solo'), self)
  t.is(cluster.member('nobody'), undefined)
  t.is(cluster.size, 1)
  t.is(cluster.phi('solo'), 0)
  t.is(cluster.phi('nobody'), null)
  t.throws(() => cluster.observe('nobody'), { code: 'ERR_HEARSAY_UNKNOWN_MEMBER' })
  t.throws(() => cluster.member(1 as never), { code: 'ERR_HEARSAY_ARGUMENT' })
  t.regex(cluster.root(), /^[0-9a-f]{64}$/)
  t.deepEqual(cluster.health(), { healthy: true, reasons: [] })
  const metrics = cluster.metrics()
  t.is(metrics.members.alive, 1)
  t.is(metrics.healthy, 1)
  const numbers = (value: unknown): boolean =>
    typeof value === 'number' ? Number.isFinite(value) : Object.values(value as object).every(numbers)
  t.true(numbers(metrics))
})

test('two members join, see each other, and one leaves', async (t) => {
  const a = await Cluster.start({ name: 'a', profile: 'local' })
  const b = await Cluster.start({ name: 'b', profile: 'local', seeds: [a.self.address] })
  await Promise.all([
    a.waitFor({ members: 2, timeoutMs: 10_000 }),
    b.waitFor({ members: 2, timeoutMs: 10_000 }),
  ])
  t.deepEqual(
    a.members().map(({ name }) => name),
    ['a', 'b'],
  )
  t.deepEqual(
    b.members().map(({ name }) => name),
    ['a', 'b'],
  )
  const left = once(a, 'memberLeft') as Promise<Member[]>
  await b.leave()
  const [gone] = await left
  t.like(gone, { name: 'b', liveness: 'left' })
  t.is(a.size, 1)
  t.deepEqual(
    a.members({ liveness: 'left' }).map(({ name }) => name),
    ['b'],
  )
  t.is(a.member('b')?.liveness, 'left')
  t.is(a.phi('b'), null)
  await a.stop()
})

test('events before start resolves come in the first turn after it', async (t) => {
  await using a = await Cluster.start({ name: 'a', profile: 'local' })
  const b = await Cluster.start({ name: 'b', profile: 'local', seeds: [a.self.address] })
  t.is(b.size, 2, 'the seed has answered')
  const joined: string[] = []
  b.on('memberJoined', (member) => joined.push(member.name))
  t.deepEqual(joined, [])
  await new Promise((resolve) => setImmediate(() => setImmediate(resolve)))
  t.true(joined.includes('a'))
  await b.stop()
})

test('a seed that answers nothing is an event, not a rejection', async (t) => {
  await using cluster = await Cluster.start({ seeds: ['127.0.0.1:9'], joinTimeoutMs: 300 })
  const [failure] = (await once(cluster, 'seedFailed')) as [{ seed: string; error: HearsayError }]
  t.is(failure.seed, '127.0.0.1:9')
  t.true(failure.error instanceof HearsayError)
  t.is(failure.error.code, 'ERR_HEARSAY_SEED')
  t.false(cluster.health().healthy)
})

test('a seed that does not resolve is an event', async (t) => {
  await using cluster = await Cluster.start({ seeds: ['no-such-host.invalid:7946'], joinTimeoutMs: 500 })
  const [failure] = (await once(cluster, 'seedFailed')) as [{ seed: string }]
  t.is(failure.seed, 'no-such-host.invalid:7946')
})

test('seeds from a function; one that throws is an event', async (t) => {
  await using a = await Cluster.start({ name: 'a', profile: 'local' })
  await using b = await Cluster.start({ name: 'b', profile: 'local', seeds: async () => [a.self.address] })
  t.is(b.size, 2)
  await using c = await Cluster.start({
    seeds: () => {
      throw new Error('no list')
    },
  })
  const [failure] = (await once(c, 'seedFailed')) as [{ error: HearsayError }]
  t.regex(failure.error.message, /no list/)
})

test('while alone, the function is asked again and names are resolved again', async (t) => {
  await using a = await Cluster.start({ name: 'a', profile: 'local' })
  let asked = 0
  const seeds = async () => (asked++ === 0 ? [] : [a.self.address])
  await using b = await Cluster.start({ name: 'b', profile: 'local', seeds })
  t.is(b.size, 1)
  const { address } = a.self
  await a.stop()
  await using c = await Cluster.start({
    name: 'c',
    profile: 'local',
    seeds: [address.replace('127.0.0.1', 'localhost')],
  })
  t.is(c.size, 1, 'nobody is there yet')
  await using again = await Cluster.start({ name: 'a', profile: 'local', bind: address })
  await Promise.all([b, c, again].map((member) => member.waitFor({ members: 3, timeoutMs: 60_000 })))
  t.true(asked > 1)
})

test('join later, tags later', async (t) => {
  await using a = await Cluster.start({ name: 'a', profile: 'local' })
  await using b = await Cluster.start({ name: 'b', profile: 'local' })
  await t.throwsAsync(b.join(['nowhere']), { code: 'ERR_HEARSAY_OPTION', message: /^seeds\[0\]/ })
  await b.join([a.self.address])
  await a.waitFor({ members: 2, timeoutMs: 10_000 })
  const updated = once(a, 'memberUpdated') as Promise<Member[]>
  await b.updateTags({ role: 'api', draining: 'yes' })
  t.deepEqual(b.self.tags, { role: 'api', draining: 'yes' })
  const [member] = await updated
  t.deepEqual(member?.tags, { role: 'api', draining: 'yes' })
  await t.throwsAsync(b.updateTags({ big: 'x'.repeat(250), bigger: 'y'.repeat(255) }), {
    code: 'ERR_HEARSAY_TAGS',
  })
})

test('start rejects: wrong option, port in use, not an address of this machine', async (t) => {
  await t.throwsAsync(Cluster.start({ profile: 'moon' } as never), { code: 'ERR_HEARSAY_OPTION' })
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as { port: number }
  const error = await t.throwsAsync(Cluster.start({ bind: `127.0.0.1:${port}` }), {
    code: 'ERR_HEARSAY_BIND',
  })
  t.regex(error?.message ?? '', new RegExp(`127\\.0\\.0\\.1:${port}`))
  server.close()
  await t.throwsAsync(Cluster.start({ bind: '192.0.2.1:0' }), { code: 'ERR_HEARSAY_BIND' })
})

test('two members of one name: the newer does not start, or stops as soon as it is known', async (t) => {
  await using a = await Cluster.start({ name: 'twin', profile: 'local' })
  const seeds = [a.self.address]
  try {
    const b = await Cluster.start({ name: 'twin', profile: 'local', seeds, joinTimeoutMs: 10_000 })
    const [other] = (await once(b, 'nameConflict')) as Member[]
    t.is(other?.id, a.self.id)
    await b.stop()
  } catch (error) {
    t.like(error, { code: 'ERR_HEARSAY_NAME_CONFLICT' })
  }
  t.is(a.size, 1)
  t.is(a.self.liveness, 'alive')
})

test('signal: aborted before, during and after start', async (t) => {
  await t.throwsAsync(Cluster.start({ signal: AbortSignal.abort('early') }), { name: 'AbortError' })
  const during = new AbortController()
  const starting = Cluster.start({ seeds: ['127.0.0.1:9'], signal: during.signal })
  setTimeout(() => during.abort('now'), 50)
  t.is((await t.throwsAsync(starting, { name: 'AbortError' }))?.cause, 'now')

  const after = new AbortController()
  const cluster = await Cluster.start({ signal: after.signal })
  const waiting = cluster.waitFor({ members: 2 })
  after.abort()
  await t.throwsAsync(waiting, { code: 'ERR_HEARSAY_STOPPED' })
  await cluster.stop()
  t.throws(() => cluster.size, { code: 'ERR_HEARSAY_STOPPED' })
})

test('waitFor: there already, too few in time, aborted, stopped', async (t) => {
  const cluster = await Cluster.start()
  await cluster.waitFor({ members: 1 })
  const late = await t.throwsAsync(cluster.waitFor({ members: 2, timeoutMs: 50 }), {
    code: 'ERR_HEARSAY_TIMEOUT',
  })
  t.is(late?.message, 'waited 50 ms for 2 members, there are 1')
  await t.throwsAsync(cluster.waitFor({ members: 2, signal: AbortSignal.timeout(20) }), {
    name: 'AbortError',
  })
  await t.throwsAsync(cluster.waitFor({ members: 0 }), { code: 'ERR_HEARSAY_OPTION' })
  const waiting = cluster.waitFor({ members: 2 })
  await cluster.stop()
  await t.throwsAsync(waiting, { code: 'ERR_HEARSAY_STOPPED' })
})

test('leave and stop, in any order and as often as one likes', async (t) => {
  const a = await Cluster.start({ name: 'a' })
  const { self } = a
  await Promise.all([a.leave(), a.stop(), a.leave({ timeoutMs: 10 }), a.stop()])
  await a.leave()
  await a[Symbol.asyncDispose]()
  t.deepEqual(a.self.id, self.id)
  t.is(a.metrics().members.alive, 1)
  t.throws(() => a.members(), { code: 'ERR_HEARSAY_STOPPED' })
  t.throws(() => a.root(), { code: 'ERR_HEARSAY_STOPPED' })
  await t.throwsAsync(a.join([]), { code: 'ERR_HEARSAY_STOPPED' })
  t.deepEqual(a.health(), { healthy: false, reasons: ['the member is stopped'] })
  const again = await Cluster.start({ name: 'a', bind: self.address })
  t.true(again.self.generation > self.generation, 'the port is free and the name goes on')
  await again.stop()
})

test('a crash is suspected, then known as death; phi follows', async (t) => {
  await using tc = await createTestCluster(3, {
    failureDetector: { heartbeatIntervalMs: 200, patienceMs: 500, minStdDevMs: 20 },
  })
  const [a, b] = tc.clusters as [Cluster, Cluster, Cluster]
  const died = Promise.all([a, b].map((cluster) => once(cluster, 'memberDied')))
  const suspected = once(a, 'memberSuspected') as Promise<Member[]>
  await tc.kill(2)
  t.like((await suspected)[0], { name: 'm2', liveness: 'suspect' })
  for (const [member] of (await died) as Member[][]) t.like(member, { name: 'm2', liveness: 'dead' })
  t.is(a.phi('m2'), Number.POSITIVE_INFINITY)
  t.is(a.size, 2)
  t.deepEqual(
    a.members({ liveness: 'dead' }).map(({ name }) => name),
    ['m2'],
  )
})

test('events(): one union, ends with the cluster, aborts', async (t) => {
  const a = await Cluster.start({ name: 'a', profile: 'local' })
  const seen: ClusterEvent[] = []
  const reading = (async () => {
    for await (const event of a.events()) seen.push(event)
  })()
  const control = new AbortController()
  const aborting = t.throwsAsync(a.events({ signal: control.signal }).next(), { name: 'AbortError' })
  control.abort()
  const b = await Cluster.start({ name: 'b', profile: 'local', seeds: [a.self.address] })
  await a.waitFor({ members: 2, timeoutMs: 10_000 })
  await b.leave()
  await aborting
  await a.stop()
  await reading
  const about = seen.filter((event) => 'member' in event && event.member.name === 'b').map(({ type }) => type)
  t.deepEqual(about, ['memberJoined', 'memberLeft'])
})

test('a wrong key, another label: dropped and counted', async (t) => {
  const key = (fill: number) => new Uint8Array(32).fill(fill)
  await using a = await Cluster.start({ name: 'a', cluster: 'x', keys: [key(1)] })
  await using b = await Cluster.start({
    name: 'b',
    cluster: 'x',
    keys: [key(2)],
    seeds: [a.self.address],
    joinTimeoutMs: 300,
  })
  await using c = await Cluster.start({
    name: 'c',
    cluster: 'y',
    keys: [key(1)],
    seeds: [a.self.address],
    joinTimeoutMs: 300,
  })
  t.deepEqual([a.size, b.size, c.size], [1, 1, 1])
  const { dropped } = a.metrics()
  t.true((dropped.unauthentic ?? 0) > 0, 'wrong key')
  t.true((dropped.label ?? 0) > 0, 'other label')
})

test('sealed members join', async (t) => {
  const keys = [Buffer.alloc(32, 7).toString('base64')]
  await using tc = await createTestCluster(2, { keys })
  t.is(tc.clusters[0]?.size, 2)
})

test('binding to the world without keys logs one warning; a logger hears of it', async (t) => {
  const warnings: string[] = []
  const logger = { warn: (_: object, message: string) => warnings.push(message) }
  const open = await Cluster.start({ bind: '0.0.0.0:0', logger })
  await open.stop()
  t.is(warnings.filter((message) => /without keys/.test(message)).length, 1)
  const sealed = await Cluster.start({ bind: '0.0.0.0:0', keys: [new Uint8Array(32).fill(3)], logger })
  await sealed.stop()
  t.is(warnings.filter((message) => /without keys/.test(message)).length, 1)
})

test('a blocked event loop keeps its heartbeats', async (t) => {
  const detector = { heartbeatIntervalMs: 100, patienceMs: 300, minStdDevMs: 10 }
  await using tc = await createTestCluster(3, { failureDetector: detector })
  await sleep(500)
  const until = performance.now() + 3_000
  while (performance.now() < until);
  await sleep(300)
  for (const cluster of tc.clusters) {
    t.is(cluster.size, 3)
    t.is(cluster.metrics().detector.deaths, 0)
    t.is(cluster.metrics().detector.suspicions, 0)
  }
  t.true((tc.clusters[0]?.metrics().js.blockedMs ?? 0) > 2_000)
})
