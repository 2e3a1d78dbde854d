import { once } from 'node:events'
import { setTimeout as sleep } from 'node:timers/promises'
import test from 'ava'
import { Cluster, type HearsayError, type Member } from '../ts/index.js'
import { createTestCluster } from '../ts/testing.js'
import { child } from './child.js'

test('advertise: the address others are told, and reach', async (t) => {
  await using a = await Cluster.start({ name: 'a', profile: 'local' })
  await using probe = await Cluster.start()
  const free = Number(probe.self.address.split(':')[1])
  await probe.stop()
  const advertise = `127.0.0.1:${free}`
  await using b = await Cluster.start({
    name: 'b',
    profile: 'local',
    bind: `0.0.0.0:${free}`,
    advertise,
    seeds: [a.self.address],
  })
  await a.waitFor({ members: 2, timeoutMs: 10_000 })
  t.is(b.self.address, advertise)
  t.is(a.member('b')?.address, advertise)
  await a.send('b', 'jobs', 1)
  await t.throwsAsync(Cluster.start({ advertise: 'no-such-host.invalid:7946' }), {
    code: 'ERR_HEARSAY_RESOLVE',
  })
})

test('observe: a live phi where there was none, until it is ended', async (t) => {
  const failureDetector = { observeAllUpTo: 0, partners: 1, heartbeatIntervalMs: 100 }
  await using tc = await createTestCluster(8, { failureDetector })
  const [a] = tc.clusters as [Cluster]
  const others = tc.clusters.slice(1).map(({ self }) => self.name)
  // With one partner each, nobody watches all seven others.
  const unwatched = others.find((name) => a.phi(name) === null)
  if (unwatched === undefined) return t.fail('everybody is watched')
  const ends = [a.observe(unwatched), a.observe(unwatched)]
  const live = async (): Promise<void> => {
    while (!((a.phi(unwatched) ?? 0) > 0)) await sleep(20)
  }
  await live()
  const samples = new Set<number | null>()
  for (let i = 0; i < 20; i++) {
    samples.add(a.phi(unwatched))
    await sleep(10)
  }
  t.true(samples.size > 1, 'it moves')
  t.throws(() => a.observe('nobody'), { code: 'ERR_HEARSAY_UNKNOWN_MEMBER' })
  t.throws(() => a.observe(1 as never), { code: 'ERR_HEARSAY_ARGUMENT' })
  for (const end of ends) end()
  for (const end of ends) end()
  while (a.phi(unwatched) !== null) await sleep(20)
  t.is(a.phi(unwatched), null)
  const later = a.observe(unwatched)
  await tc.stopAll()
  t.notThrows(later, 'ending it after the end is nothing')
})

test('logger: lines with the cluster and the name; one that throws does not hurt', async (t) => {
  const lines: [string, { cluster?: string; name?: string }, string][] = []
  const level = (name: string) => (fields: object, message: string) =>
    void lines.push([name, fields, message])
  const logger = { debug: level('debug'), info: level('info'), warn: level('warn'), error: level('error') }
  await using a = await Cluster.start({ name: 'a', cluster: 'prod', profile: 'local', logger })
  a.respond('disk-free', () => {
    throw new Error('no disk')
  })
  for await (const answer of a.query('disk-free', 1)) {
    t.is((answer.error as HearsayError).code, 'ERR_HEARSAY_RESPONDER')
  }
  const line = lines.find(([, , message]) => message === 'a responder failed')
  t.is(line?.[0], 'warn')
  t.like(line?.[1], { cluster: 'prod', name: 'a', topic: 'disk-free' })

  const ended = await child(`
    const logger = { warn: () => { throw new Error('a full disk') } }
    const thrown = []
    process.on('uncaughtException', (error) => thrown.push(error.message))
    const open = await Cluster.start({ name: 'a', bind: '0.0.0.0:0', logger })
    await new Promise((resolve) => setTimeout(resolve, 20))
    console.log(open.size, thrown.join())
    await open.stop()`)
  t.is(ended.stdout, '1 a full disk\n')
  t.is(ended.code, 0)
})

test('ref and unref: the last word counts', async (t) => {
  const held = child(`const c = await Cluster.start(); c.unref().ref(); console.log('up')`, {
    aliveMs: 2_000,
  })
  const free = child(`const c = await Cluster.start(); c.ref().unref().unref(); console.log('up')`)
  t.is((await held).signal, 'SIGKILL')
  t.like(await free, { code: 0, signal: null, stdout: 'up\n' })
})

test('health: why not, and well again', async (t) => {
  await using a = await Cluster.start({ name: 'a', profile: 'local' })
  t.deepEqual(a.health(), { healthy: true, reasons: [] }, 'alone without seeds is as it should be')
  const b = await Cluster.start({ name: 'b', profile: 'local', seeds: [a.self.address] })
  t.deepEqual(b.health(), { healthy: true, reasons: [] })
  t.is(b.metrics().healthy, 1)
  const left = once(b, 'memberLeft')
  await a.leave()
  await left
  t.deepEqual(b.health(), {
    healthy: false,
    reasons: ['no other member is known, though seeds were given'],
  })
  t.is(b.metrics().healthy, 0)
  await using again = await Cluster.start({ name: 'c', profile: 'local' })
  await b.join([again.self.address])
  await b.waitFor({ members: 2, timeoutMs: 10_000 })
  t.true(b.health().healthy)
  const stopping = b.stop()
  t.false(b.health().healthy)
  await stopping
  t.deepEqual(b.health().reasons, ['the member is stopped'])
})

test('join: several seeds, some dead; two clusters become one', async (t) => {
  await using one = await createTestCluster(2)
  await using other = await createTestCluster(2, (i) => ({ name: `o${i}` }))
  const [a] = one.clusters as [Cluster]
  const [b] = other.clusters as [Cluster]
  const failed = once(a, 'seedFailed') as Promise<[{ seed: string }]>
  await a.join(['127.0.0.1:9', b.self.address])
  const all = [...one.clusters, ...other.clusters]
  await Promise.all(all.map((cluster) => cluster.waitFor({ members: 4, timeoutMs: 20_000 })))
  t.is((await failed)[0].seed, '127.0.0.1:9')
  await t.throwsAsync(a.join('127.0.0.1:9' as never), { code: 'ERR_HEARSAY_OPTION' })
  await a.join([])
})

test('updateTags: whole, at every member, and refused whole', async (t) => {
  await using tc = await createTestCluster(3, { tags: { role: 'api', zone: 'x' } })
  const [a, b, c] = tc.clusters as [Cluster, Cluster, Cluster]
  const heard = [b, c].map((cluster) => once(cluster, 'memberUpdated') as Promise<Member[]>)
  await a.updateTags({ zone: 'y' })
  for (const [member] of await Promise.all(heard)) {
    t.like(member, { name: 'm0', zone: 'y' })
    t.deepEqual({ ...member?.tags }, { zone: 'y' })
  }
  await t.throwsAsync(a.updateTags({ zone: 1 } as never), { code: 'ERR_HEARSAY_OPTION' })
  await t.throwsAsync(a.updateTags({ big: 'x'.repeat(250), bigger: 'y'.repeat(255) }), {
    code: 'ERR_HEARSAY_TAGS',
  })
  t.deepEqual({ ...a.self.tags }, { zone: 'y' })
  await a.updateTags({})
  t.is(a.self.zone, null)
})

test('codec: one of one’s own carries state, broadcasts, mail, questions and answers between members', async (t) => {
  const codec = {
    encode: (value: unknown) =>
      Buffer.from(`!${JSON.stringify(value, (_, v) => (typeof v === 'bigint' ? `${v}n` : v))}`),
    decode: (bytes: Uint8Array) =>
      JSON.parse(Buffer.from(bytes).toString().slice(1), (_, v) =>
        typeof v === 'string' && /^\d+n$/.test(v) ? BigInt(v.slice(0, -1)) : v,
      ),
  }
  await using tc = await createTestCluster(2, { codec })
  const [a, b] = tc.clusters as [Cluster, Cluster]
  const said: unknown[] = []
  const heard = new Promise<void>((resolve) => {
    b.subscribe('jobs', (payload) => {
      if (said.push(payload) === 2) resolve()
    })
  })
  b.respond('double', (payload) => (payload as { n: bigint }).n * 2n)
  a.state.set('k', { n: 7n })
  a.broadcast('jobs', { n: 8n })
  await a.send('m1', 'jobs', { n: 9n })
  await heard
  await tc.converged()
  t.deepEqual(b.state.get('k'), { n: 7n })
  t.deepEqual(said.map((payload) => (payload as { n: bigint }).n).sort(), [8n, 9n])
  const answers: unknown[] = []
  for await (const { value } of a.query('double', { n: 21n })) answers.push(value)
  t.deepEqual(answers, [42n])
})
