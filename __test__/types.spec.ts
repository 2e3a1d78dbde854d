import test from 'ava'
import type { Cluster, ClusterEvent, HearsayError, Member, StateChange } from '../ts/index.js'

interface Schema {
  state: { [key: `flags/${string}`]: { on: boolean } } & { leader: string }
  topics: { jobs: { id: number } }
  queries: { 'disk-free': (payload: { path: string }) => number }
}

/** True only if both are the same type. */
type Same<A, B> = (<T>() => T extends A ? 1 : 2) extends <T>() => T extends B ? 1 : 2 ? true : false
const sure = <T extends true>(): T | undefined => undefined

/** Never called: the type check reads it. */
function typed(cluster: Cluster<Schema>, plain: Cluster): void {
  const flag = cluster.state.get('flags/beta')
  sure<Same<typeof flag, { on: boolean } | undefined>>()
  const leader = cluster.state.get('leader')
  sure<Same<typeof leader, string | undefined>>()
  cluster.state.set('flags/x', { on: true })
  // @ts-expect-error a flag is an object
  cluster.state.set('flags/x', 'on')
  // @ts-expect-error no such key
  cluster.state.set('flag/x', { on: true })
  // @ts-expect-error no such key
  cluster.state.has('other')

  const anything = plain.state.get('k')
  sure<Same<typeof anything, unknown>>()
  plain.state.set('k', 1)
  const change = {} as StateChange
  if (change.type !== 'set') sure<Same<typeof change.value, undefined>>()

  cluster.broadcast('jobs', { id: 1 })
  // @ts-expect-error a job has a number
  cluster.broadcast('jobs', { id: 'x' })
  // @ts-expect-error no such topic
  cluster.subscribe('job', () => {})
  cluster.subscribe('jobs', (payload, { from }) => {
    sure<Same<typeof payload, { id: number }>>()
    sure<Same<typeof from, string>>()
  })
  // @ts-expect-error a job has a number
  void cluster.send('api-2', 'jobs', {})
  const answers = cluster.query('disk-free', { path: '/' })
  void answers.next().then(({ value }) => {
    if (value === undefined) return
    if (value.error === undefined) sure<Same<typeof value.value, number>>()
    else sure<Same<typeof value.error, HearsayError>>()
  })
  cluster.respond('disk-free', ({ path }) => path.length)
  cluster.respond('disk-free', async ({ path }) => path.length)
  // @ts-expect-error the answer is a number
  cluster.respond('disk-free', () => 'full')
  plain.subscribe('any', (payload) => sure<Same<typeof payload, unknown>>())
  plain.respond('any', async () => ({ anything: 1 }))

  cluster.on('memberJoined', (member) => sure<Same<typeof member, Member>>())
  cluster.on('partitionHealed', ({ members }) => sure<Same<typeof members, string[]>>())
  cluster.on('lagged', ({ source }) => sure<Same<typeof source, 'events' | 'watch' | 'broadcasts'>>())
  // @ts-expect-error no such event
  cluster.on('memberJoin', () => {})
  const event = {} as ClusterEvent
  if (event.type === 'seedFailed') sure<Same<typeof event.seed, string>>()
  if (event.type === 'memberDied') sure<Same<typeof event.member, Member>>()
}

test('types are checked by tsc', (t) => {
  t.is(typeof typed, 'function')
})
