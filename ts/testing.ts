/**
 * Clusters for tests: many members in one process on loopback, and faults on purpose, without root.
 *
 * @packageDocumentation
 */
import { setTimeout as sleep } from 'node:timers/promises'
import { Cluster, nativeOf } from './cluster.js'
import { fromNative, HearsayError, throwIfAborted } from './errors.js'
import type { NativeCluster } from './native.js'
import { checkWait, show } from './options.js'
import type { AnySchema, ClusterOptions, SchemaShape } from './types.js'

/** Members of one test cluster at most. */
const MEMBERS_MAX = 1_000
/** Members started at the same time. */
const START_MAX = 16
/** How often `converged` looks. */
const LOOK_MS = 25

/** Faults of one member, in its own send and receive path. They act until `heal`. */
export interface Faults {
  /** Nothing passes between this member and these `ip:port`, in addition to earlier cuts. */
  cut(addresses: readonly string[]): void
  /** Each datagram to or from this member is lost with this probability, 0..1, on each of the two ways. */
  loss(probability: number): void
  /** Each datagram and frame is held up for so many milliseconds, 0..60000, on each of the two ways. */
  delay(ms: number): void
  /** Ends every fault. */
  heal(): void
}

function inject(cluster: object, fault: (native: NativeCluster) => void): void {
  const native = nativeOf(cluster)
  try {
    fault(native)
  } catch (error) {
    throw fromNative(error)
  }
}

function within(value: unknown, name: string, max: number): number {
  if (typeof value !== 'number' || !(value >= 0 && value <= max)) {
    throw new HearsayError(
      'ERR_HEARSAY_ARGUMENT',
      `${name} must be a number in 0..${max}, got ${show(value)}`,
    )
  }
  return value
}

/** The faults of one running cluster, in any process. */
export function faults<S extends SchemaShape>(cluster: Cluster<S>): Faults {
  return {
    cut: (addresses) => inject(cluster, (native) => native.faultCut([...addresses])),
    loss: (probability) => {
      const p = within(probability, 'loss', 1)
      inject(cluster, (native) => native.faultLoss(p, p))
    },
    delay: (ms) => {
      const each = within(ms, 'delay', 60_000)
      inject(cluster, (native) => native.faultDelay(each, each))
    },
    heal: () => inject(cluster, (native) => native.faultHeal()),
  }
}

/** Options of a test cluster: those of `Cluster.start` for every member, or a function of the member's index. */
export type TestOptions = ClusterOptions | ((index: number) => ClusterOptions)

/** Members in this process. Members are named by their index, in the order they were started. */
export class TestCluster<S extends SchemaShape = AnySchema> {
  /** The members; killed ones stay in their place. */
  readonly clusters: Cluster<S>[] = []
  readonly #options: (index: number) => ClusterOptions
  readonly #stopped = new Set<number>()

  /** Use {@link createTestCluster}. */
  constructor(options?: TestOptions) {
    this.#options = typeof options === 'function' ? options : () => options ?? {}
  }

  /** Starts one more member, which joins by the first running one; `options` go over those of the test cluster. */
  async add(options?: ClusterOptions): Promise<Cluster<S>> {
    const [cluster] = await this.#launch(1, options)
    return cluster as Cluster<S>
  }

  /** @internal Starts `count` members: the first one alone, the others in groups. */
  async begin(count: number): Promise<void> {
    await this.#launch(1)
    while (this.clusters.length < count) await this.#launch(Math.min(START_MAX, count - this.clusters.length))
    await Promise.all(this.clusters.map((cluster) => cluster.waitFor({ members: count, timeoutMs: 60_000 })))
  }

  async #launch(count: number, options?: ClusterOptions): Promise<Cluster<S>[]> {
    const from = this.clusters.length
    const seed = this.running[0]?.self.address
    const starts = Array.from({ length: count }, (_, i) =>
      Cluster.start<S>({
        name: `m${from + i}`,
        profile: 'local',
        ...(seed === undefined ? {} : { seeds: [seed] }),
        ...this.#options(from + i),
        ...options,
      }),
    )
    const settled = await Promise.allSettled(starts)
    for (const start of settled) if (start.status === 'fulfilled') this.clusters.push(start.value)
    for (const start of settled) if (start.status === 'rejected') throw start.reason
    return this.clusters.slice(from)
  }

  /** Those not killed or stopped, in order. */
  get running(): Cluster<S>[] {
    return this.clusters.filter((_, index) => !this.#stopped.has(index))
  }

  /** Nothing passes between these two. */
  cut(a: number, b: number): void {
    const [first, second] = [this.#at(a), this.#at(b)]
    inject(first, (native) => native.faultCut([second.self.address]))
    inject(second, (native) => native.faultCut([first.self.address]))
  }

  /** Nothing passes between this one and all others. */
  isolate(index: number): void {
    inject(this.#at(index), (native) => native.faultIsolate())
  }

  /** Nothing passes between members of different groups; members of no group are left alone. */
  partition(...groups: readonly (readonly number[])[]): void {
    const named = groups.map((group) => group.map((index) => this.#at(index)))
    for (const group of named) {
      const others = named.filter((other) => other !== group).flat()
      const addresses = others.map((other) => other.self.address)
      for (const member of group) inject(member, (native) => native.faultCut(addresses))
    }
  }

  /** Each datagram of each running member is lost with this probability. */
  loss(probability: number): void {
    const p = within(probability, 'loss', 1)
    for (const member of this.running) inject(member, (native) => native.faultLoss(p, 0))
  }

  /** Each datagram and frame of each running member arrives so many milliseconds later. */
  delay(ms: number): void {
    const each = within(ms, 'delay', 60_000)
    for (const member of this.running) inject(member, (native) => native.faultDelay(each, 0))
  }

  /** Ends every fault of every member. */
  heal(): void {
    for (const member of this.running) inject(member, (native) => native.faultHeal())
  }

  /**
   * Resolves when all running members have equal views of each other, nobody is suspected, and their roots are equal. Rejects
   * with `ERR_HEARSAY_TIMEOUT` after `timeoutMs` (10,000), naming who differs.
   */
  async converged(options?: { timeoutMs?: number; signal?: AbortSignal }): Promise<void> {
    const { timeoutMs = 10_000, signal } = checkWait(options, 'converged')
    const until = performance.now() + timeoutMs
    for (;;) {
      throwIfAborted(signal)
      const differs = this.#differs()
      if (differs === undefined) return
      if (performance.now() >= until) {
        throw new HearsayError('ERR_HEARSAY_TIMEOUT', `not converged after ${timeoutMs} ms: ${differs}`)
      }
      await sleep(LOOK_MS)
    }
  }

  /** Stops a member as a crash would; the others have to find out. */
  async kill(index: number): Promise<void> {
    const cluster = this.#at(index)
    this.#stopped.add(index)
    await cluster.stop()
  }

  /** Stops all members. Idempotent. */
  async stopAll(): Promise<void> {
    for (const index of this.clusters.keys()) this.#stopped.add(index)
    await Promise.all(this.clusters.map((cluster) => cluster.stop()))
  }

  /** As `stopAll`. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.stopAll()
  }

  #at(index: number): Cluster<S> {
    const cluster = this.clusters[index]
    if (cluster !== undefined && !this.#stopped.has(index)) return cluster
    throw new HearsayError('ERR_HEARSAY_ARGUMENT', `no running member has the index ${show(index)}`)
  }

  #differs(): string | undefined {
    const running = this.running
    const expected = running.map((cluster) => cluster.self.name).sort()
    for (const cluster of running) {
      const members = cluster.members()
      const { name } = cluster.self
      const names = members.map((member) => member.name)
      const missing = expected.filter((other) => !names.includes(other))
      if (missing.length > 0) return `${name} does not see ${missing.join(', ')}`
      const extra = names.filter((other) => !expected.includes(other))
      if (extra.length > 0) return `${name} still sees ${extra.join(', ')}`
      const suspects = members.filter((member) => member.liveness === 'suspect').map((member) => member.name)
      if (suspects.length > 0) return `${name} suspects ${suspects.join(', ')}`
    }
    const first = running[0]
    if (first === undefined) return undefined
    const root = first.root()
    const others = running.filter((cluster) => cluster.root() !== root).map((cluster) => cluster.self.name)
    if (others.length === 0) return undefined
    return `the root of ${others.join(', ')} differs from that of ${first.self.name}`
  }
}

/**
 * Starts `count` members m0, m1, ... on loopback in this process and resolves when each knows all. Profile `local` unless the
 * options say otherwise. `await using` stops them all.
 */
export async function createTestCluster<S extends SchemaShape = AnySchema>(
  count: number,
  options?: TestOptions,
): Promise<TestCluster<S>> {
  if (!Number.isInteger(count) || count < 1 || count > MEMBERS_MAX) {
    throw new HearsayError(
      'ERR_HEARSAY_ARGUMENT',
      `count must be an integer in 1..${MEMBERS_MAX}, got ${show(count)}`,
    )
  }
  const test = new TestCluster<S>(options)
  try {
    await test.begin(count)
  } catch (error) {
    await test.stopAll()
    throw error
  }
  return test
}
