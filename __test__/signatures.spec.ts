import { type EventEmitter, once } from 'node:events'
import test from 'ava'
import {
  type Answer,
  Cluster,
  type ClusterEvent,
  type ClusterOptions,
  type ClusterRing,
  HashRing,
  type Health,
  HearsayError,
  type HearsayErrorCode,
  type Lagged,
  type Liveness,
  type Member,
  MerkleTree,
  type Metrics,
  type PartitionHealed,
  PhiAccrualDetector,
  type PhiModel,
  type Reached,
  type RingChange,
  type SeedFailed,
  type Sent,
  type Simulation,
  type SimulationFigures,
  type State,
  type StateChange,
  simulate,
  type Written,
} from '../ts/index.js'
import { createTestCluster, type Faults, faults, type TestCluster } from '../ts/testing.js'

interface Schema {
  state: { [key: `flags/${string}`]: { on: boolean } } & { leader: string }
  topics: { jobs: { id: number } }
  queries: { 'disk-free': (payload: { path: string }) => number }
}

type Same<A, B> = (<T>() => T extends A ? 1 : 2) extends <T>() => T extends B ? 1 : 2 ? true : false
/** Compiles only if the value has exactly this type. */
type Is = <Wanted>() => <Given>(
  given: Given,
  ...same: Same<Given, Wanted> extends true ? [] : [never]
) => void

/** Each of these is read by tsc and never called: who calls it says what may not compile. */
const start = async (is: Is): Promise<void> => {
  is<Cluster>()(await Cluster.start())
  is<Cluster<Schema>>()(await Cluster.start<Schema>({ name: 'a' }))
  const whole: ClusterOptions = {
    name: 'a',
    cluster: 'prod',
    bind: '127.0.0.1:0',
    advertise: '10.0.0.1:7946',
    seeds: async () => ['127.0.0.1:1'],
    tags: { role: 'api' },
    keys: [new Uint8Array(32), 'AAAA'],
    profile: 'wan',
    gossip: { intervalMs: 200, fanout: 3 },
    failureDetector: { model: 'normal', threshold: 8, windowSize: 64, patienceMs: 4000 },
    antiEntropy: { settleMs: 3000, confirmMs: 1000 },
    bandwidth: { bytesPerSecondMax: 256_000 },
    codec: { encode: () => new Uint8Array(), decode: () => 1 },
    logger: { info: () => {}, warn: (fields, message) => void [fields, message] },
    storage: { path: '/var/lib/a' },
    forgetDeadAfterMs: 1,
    broadcastRetentionMs: 1000,
    joinTimeoutMs: 1000,
    limits: { keyBytesMax: 512, valueBytesMax: 1024 },
    signal: AbortSignal.timeout(1),
  }
  await Cluster.start(whole)
  await Cluster.start({ name: undefined, seeds: undefined, gossip: undefined })
  // @ts-expect-error unknown option
  await Cluster.start({ naem: 'a' })
  // @ts-expect-error a name is a string
  await Cluster.start({ name: 1 })
  // @ts-expect-error seeds are a list
  await Cluster.start({ seeds: '127.0.0.1:1' })
  // @ts-expect-error seeds are strings
  await Cluster.start({ seeds: [7946] })
  // @ts-expect-error no such profile
  await Cluster.start({ profile: 'moon' })
  // @ts-expect-error no such model
  await Cluster.start({ failureDetector: { model: 'gamma' } })
  // @ts-expect-error milliseconds are a number
  await Cluster.start({ joinTimeoutMs: '1s' })
  // @ts-expect-error no such codec
  await Cluster.start({ codec: 'xml' })
  // @ts-expect-error tags are strings
  await Cluster.start({ tags: { weight: 1 } })
  // @ts-expect-error a folder has a path
  await Cluster.start({ storage: '/var/lib/a' })
  // @ts-expect-error a codec has both ways
  await Cluster.start({ codec: { encode: () => new Uint8Array() } })
  // @ts-expect-error a schema's parts are objects
  await Cluster.start<{ state: string }>()
  // @ts-expect-error start it
  new Cluster()
}

const membership = async (is: Is, cluster: Cluster): Promise<void> => {
  is<Member>()(cluster.self)
  is<Member[]>()(cluster.members())
  is<Member[]>()(cluster.members({ liveness: 'all' }))
  is<Member[]>()(cluster.members({ liveness: ['dead', 'left'] }))
  is<Member | undefined>()(cluster.member('a'))
  is<number>()(cluster.size)
  is<number | null>()(cluster.phi('a'))
  is<() => void>()(cluster.observe('a'))
  is<void>()(await cluster.waitFor({ members: 3, timeoutMs: 1, signal: AbortSignal.timeout(1) }))
  is<void>()(await cluster.join(['127.0.0.1:1']))
  is<void>()(await cluster.updateTags({ role: 'db' }))
  is<string>()(cluster.root())
  is<Metrics>()(cluster.metrics())
  is<Health>()(cluster.health())
  is<Liveness>()(cluster.self.liveness)
  is<string | null>()(cluster.self.zone)
  is<Readonly<Record<string, string>>>()(cluster.self.tags)
  // @ts-expect-error a member is a snapshot
  cluster.self.name = 'b'
  // @ts-expect-error read only
  cluster.size = 3
  // @ts-expect-error no such liveness
  cluster.members({ liveness: 'gone' })
  // @ts-expect-error by name, not by member
  cluster.member(cluster.self)
  // @ts-expect-error how many
  await cluster.waitFor({ timeoutMs: 1 })
  // @ts-expect-error what for
  await cluster.waitFor()
  // @ts-expect-error a list
  await cluster.join('127.0.0.1:1')
  // @ts-expect-error tags are strings
  await cluster.updateTags({ draining: true })
}

const lifetime = async (is: Is, cluster: Cluster): Promise<void> => {
  is<Cluster>()(cluster.ref())
  is<Cluster>()(cluster.unref())
  is<void>()(await cluster.leave())
  is<void>()(await cluster.leave({ timeoutMs: 1 }))
  is<void>()(await cluster.stop())
  is<void>()(await cluster[Symbol.asyncDispose]())
  await using disposed = cluster
  void disposed
  // @ts-expect-error milliseconds
  await cluster.leave(1000)
  // @ts-expect-error nothing to say
  await cluster.stop(true)
  // @ts-expect-error its end takes time
  using sync = cluster
  void sync
}

const state = async (is: Is, typed: State<Schema>, plain: State): Promise<void> => {
  is<Written>()(typed.set('leader', 'a'))
  is<Written>()(typed.set('flags/x', { on: true }, { ttlMs: 1 }))
  is<{ on: boolean } | undefined>()(typed.get('flags/x'))
  is<string | undefined>()(typed.get('leader'))
  is<boolean>()(typed.has('leader'))
  is<boolean>()(typed.delete('flags/x'))
  is<number>()(typed.size)
  is<(`flags/${string}` | 'leader')[]>()(typed.keys({ prefix: 'flags/' }))
  is<unknown>()(plain.get('anything'))
  is<string[]>()(plain.keys())
  is<[string, unknown][]>()(plain.entries({ prefix: 'a' }))
  is<void>()(
    await plain.spread('k', { members: 3, version: 'v', timeoutMs: 1, signal: AbortSignal.timeout(1) }),
  )
  is<void>()(await plain.flush())
  is<void>()(await plain.flush({ timeoutMs: 1, signal: AbortSignal.timeout(1) }))
  for await (const change of plain.watch('flags/', { signal: AbortSignal.timeout(1) })) {
    const said: StateChange = change
    is<string>()(said.key)
    is<string | null>()(change.origin)
    if (change.type !== 'set') is<undefined>()(change.value)
  }
  for await (const change of typed.watch()) is<'set' | 'delete' | 'expire'>()(change.type)
  // @ts-expect-error a leader is a string
  typed.set('leader', 1)
  // @ts-expect-error no such key
  typed.set('follower', 'a')
  // @ts-expect-error no such key
  typed.get('follower')
  // @ts-expect-error no such key
  typed.delete('flag/x')
  // @ts-expect-error a value is missing
  plain.set('k')
  // @ts-expect-error no such option
  plain.set('k', 1, { ttl: 1 })
  // @ts-expect-error a prefix is text
  plain.keys({ prefix: /a/ })
  // @ts-expect-error how many
  await plain.spread('k', {})
  // @ts-expect-error no such key
  await typed.spread('follower', { members: 1 })
}

const talk = async (is: Is, typed: Cluster<Schema>, plain: Cluster): Promise<void> => {
  is<Sent>()(typed.broadcast('jobs', { id: 1 }))
  is<Reached>()(await typed.broadcast('jobs', { id: 1 }).reached({ timeoutMs: 1 }))
  is<boolean>()(plain.broadcast('any', 1).backlogged)
  const off = typed.subscribe('jobs', ({ id }, { from }) => void [is<number>()(id), is<string>()(from)])
  is<() => void>()(off)
  const offPlain = plain.subscribe('any', async (payload) => is<unknown>()(payload))
  is<() => void>()(offPlain)
  is<void>()(await typed.send('b', 'jobs', { id: 1 }, { timeoutMs: 1, signal: AbortSignal.timeout(1) }))
  const offResponder = typed.respond('disk-free', ({ path }, { from }) => path.length + from.length)
  is<() => void>()(offResponder)
  const filter = { tags: { role: 'db' } }
  for await (const answer of typed.query('disk-free', { path: '/' }, { filter, timeoutMs: 1 })) {
    is<Answer<number>>()(answer)
    if (answer.error) is<HearsayError>()(answer.error)
    else is<number>()(answer.value)
  }
  // @ts-expect-error no such topic
  typed.broadcast('job', { id: 1 })
  // @ts-expect-error a payload is missing
  typed.broadcast('jobs')
  // @ts-expect-error an id is a number
  await typed.send('b', 'jobs', { id: 'x' })
  // @ts-expect-error to whom
  await typed.send('jobs', { id: 1 })
  // @ts-expect-error a query is no topic
  typed.subscribe('disk-free', () => {})
  // @ts-expect-error a topic is no query
  typed.query('jobs', { id: 1 })
  // @ts-expect-error a path
  typed.query('disk-free', '/')
  // @ts-expect-error tags are strings
  plain.query('any', 1, { filter: { tags: { weight: 1 } } })
  // @ts-expect-error the answer is a number
  typed.respond('disk-free', async () => 'full')
}

const events = async (is: Is, cluster: Cluster): Promise<void> => {
  const emitter: EventEmitter = cluster
  void emitter
  const names = [
    'memberJoined',
    'memberSuspected',
    'memberRefuted',
    'memberDied',
    'memberLeft',
    'memberUpdated',
    'memberRevived',
    'nameConflict',
  ] as const
  for (const name of names) cluster.on(name, (member) => is<Member>()(member))
  cluster.once('partitionHealed', (healed) => is<PartitionHealed>()(healed))
  cluster.on('seedFailed', (failed) => is<SeedFailed>()(failed))
  cluster.on('lagged', (lagged) => is<Lagged>()(lagged))
  cluster.on('rejoined', ({ dropped }) => is<number>()(dropped))
  cluster.on('error', (error) => is<Error>()(error))
  const died: unknown[] = await once(cluster, 'memberDied')
  void died
  for await (const event of cluster.events({ signal: AbortSignal.timeout(1) })) {
    is<ClusterEvent>()(event)
    switch (event.type) {
      case 'partitionHealed':
        is<number>()(event.keysReceived)
        break
      case 'lagged':
        is<'events' | 'watch' | 'broadcasts'>()(event.source)
        break
      case 'error':
        is<Error>()(event.error)
        break
      case 'seedFailed':
        is<HearsayError>()(event.error)
        break
      case 'rejoined':
        break
      default:
        is<Member>()(event.member)
    }
  }
  // @ts-expect-error past tense
  cluster.on('memberJoin', () => {})
  // @ts-expect-error a member has a name, not a text
  cluster.on('memberDied', (member: string) => void member)
}

const tools = (is: Is): void => {
  const model: PhiModel = 'exponential'
  const detector = new PhiAccrualDetector({ model, threshold: 8, windowSize: 10, minStdDevMs: 1 })
  new PhiAccrualDetector({ acceptablePauseMs: 1, firstHeartbeatEstimateMs: 1 })
  is<void>()(detector.heartbeat(1))
  is<number>()(detector.phi(1))
  is<boolean>()(detector.isAvailable(1))
  is<number>()(detector.mean)
  is<number>()(detector.stdDev)
  is<number>()(detector.samples)
  // @ts-expect-error when
  detector.heartbeat()
  // @ts-expect-error milliseconds
  detector.phi(new Date())
  // @ts-expect-error measured, not set
  detector.mean = 1
  // @ts-expect-error no such model
  new PhiAccrualDetector({ model: 'poisson' })

  const tree = new MerkleTree()
  is<boolean>()(tree.set('k', 'v'))
  is<boolean>()(tree.set('k', new Uint8Array(1)))
  is<boolean>()(tree.delete('k'))
  is<boolean>()(tree.has('k'))
  is<void>()(tree.clear())
  is<number>()(tree.size)
  is<string>()(tree.root())
  is<string[]>()(tree.diff(new MerkleTree()))
  // @ts-expect-error bytes or text
  tree.set('k', 1)
  // @ts-expect-error with another tree
  tree.diff(tree.root())

  const error = new HearsayError('ERR_HEARSAY_TIMEOUT', 'late', { cause: 1 })
  is<HearsayErrorCode>()(error.code)
  // @ts-expect-error no such code
  new HearsayError('ERR_OTHER', 'late')
  // @ts-expect-error no such code to compare with
  void (error.code === 'ERR_OTHER')
}

const simulated = async (is: Is): Promise<void> => {
  const rumor = await simulate({ members: 10, loss: 0.1, seed: 1, scenario: { kind: 'rumor', writes: 3 } })
  is<Simulation<'rumor'>>()(rumor)
  is<SimulationFigures['rumor']>()(rumor.figures)
  is<string[]>()(rumor.failures)
  const crash = await simulate({ members: 5, scenario: { kind: 'crash' }, config: { profile: 'wan' } })
  is<number>()(crash.figures.falseDeaths)
  // @ts-expect-error how many
  await simulate({ scenario: { kind: 'rumor' } })
  // @ts-expect-error no such scenario
  await simulate({ members: 5, scenario: { kind: 'storm' } })
  // @ts-expect-error a rumor has no crashes
  await simulate({ members: 5, scenario: { kind: 'rumor', crashes: 1 } })
  // @ts-expect-error a crash has no halves
  void crash.figures.halfMs
}

const rings = (is: Is, cluster: Cluster): void => {
  const ring = cluster.ring({
    virtualNodes: 100,
    filter: { tags: { role: 'db' } },
    zoneAware: true,
    weightTag: 'w',
  })
  is<ClusterRing>()(ring)
  is<ClusterRing>()(cluster.ring())
  is<string | undefined>()(ring.owner('user:42'))
  is<string[]>()(ring.owners('user:42', 3))
  is<string>()(ring.version)
  is<number>()(ring.size)
  ring.on('change', (change) => is<RingChange>()(change))
  ring.on('change', ({ added, removed, version }) => void [is<string[]>()(added), removed, version])
  is<void>()(ring.close())
  // @ts-expect-error how many
  ring.owners('user:42')
  // @ts-expect-error tags are strings
  cluster.ring({ filter: { tags: { weight: 1 } } })
  // @ts-expect-error no such option
  cluster.ring({ vnodes: 1 })
  // @ts-expect-error it follows the cluster
  ring.add({ name: 'a' })
  // @ts-expect-error past tense or not, there is one event
  ring.on('changed', () => {})

  const members = [{ name: 'a', weight: 2, zone: 'x' }, { name: 'b' }]
  const alone = new HashRing(members, { virtualNodes: 10, zoneAware: true })
  new HashRing()
  is<string | undefined>()(alone.owner('k'))
  is<string[]>()(alone.owners('k', 2))
  is<boolean>()(alone.add({ name: 'c' }))
  is<boolean>()(alone.remove('c'))
  is<boolean>()(alone.has('c'))
  is<number>()(alone.size)
  is<string>()(alone.version)
  // @ts-expect-error members, not names
  new HashRing(['a', 'b'])
  // @ts-expect-error a weight is a number
  alone.add({ name: 'c', weight: '1' })
  // @ts-expect-error by name
  alone.remove({ name: 'c' })
}

const testing = async (is: Is): Promise<void> => {
  const tc = await createTestCluster(3, { tags: { role: 'db' } })
  is<TestCluster>()(tc)
  is<TestCluster<Schema>>()(await createTestCluster<Schema>(2, (index) => ({ name: `m${index}` })))
  is<Cluster[]>()(tc.clusters)
  is<Cluster[]>()(tc.running)
  is<Cluster>()(await tc.add({ name: 'late' }))
  is<void>()(tc.cut(0, 1))
  is<void>()(tc.isolate(0))
  is<void>()(tc.partition([0], [1, 2]))
  is<void>()(tc.loss(0.2))
  is<void>()(tc.delay(10))
  is<void>()(tc.heal())
  is<void>()(await tc.converged({ timeoutMs: 1, signal: AbortSignal.timeout(1) }))
  is<void>()(await tc.kill(0))
  is<void>()(await tc.stopAll())
  is<void>()(await tc[Symbol.asyncDispose]())
  const one = faults(await Cluster.start())
  is<Faults>()(one)
  is<void>()(one.cut(['127.0.0.1:1']))
  is<void>()(one.loss(0.5))
  is<void>()(one.delay(5))
  is<void>()(one.heal())
  // @ts-expect-error how many
  await createTestCluster()
  // @ts-expect-error by index
  tc.cut('m0', 'm1')
  // @ts-expect-error groups
  tc.partition(0, 1)
  // @ts-expect-error of a cluster, not of a test cluster
  faults(tc)
}

test('every public signature is held by tsc, and so is every wrong use', (t) => {
  for (const held of [start, membership, lifetime, state, talk, events, tools, simulated, rings, testing]) {
    t.is(typeof held, 'function')
  }
})
