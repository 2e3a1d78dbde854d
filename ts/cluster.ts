import { EventEmitter } from 'node:events'
import { Announcer } from './announcer.js'
import { blockedMs, watchLoop } from './blocked.js'
import { AbortError, fromNative, HearsayError, throwIfAborted, untilAborted } from './errors.js'
import { type ClusterEvent, type ClusterEvents, toClusterEvent } from './events.js'
import { Joining } from './joining.js'
import { binding, type NativeCluster } from './native.js'
import {
  type CheckedOptions,
  checkClusterOptions,
  checkLiveness,
  tags as checkTags,
  checkWait,
  isLoopback,
  nativeOptions,
  seedList,
  show,
} from './options.js'
import { type NativeEvent, readEvents, readMember, readMembers } from './packed.js'
import { type ClusterRing, Rings } from './ring.js'
import { State } from './state.js'
import { type Answer, type QueryOptions, type Sender, type Sent, Talk, type WaitOptions } from './talk.js'
import type {
  AnswerOf,
  AnySchema,
  ClusterOptions,
  Health,
  Liveness,
  Logger,
  Member,
  Metrics,
  PayloadOf,
  QueryOf,
  QueryPayloadOf,
  RingOptions,
  SchemaShape,
  TopicOf,
} from './types.js'

/** Events taken over in one turn of the loop before others get theirs. */
const TURN_EVENTS_MAX = 256
/** Time a stop may take before the cluster counts as stopped without the driver's word. */
const STOP_GRACE_MS = 5_000
/** Timers hold no longer than this. */
const HOLD_MS = 2_147_483_647

/** Packed events are copied to it and read before anything else runs, so the clusters of a thread share it. */
let buffer = Buffer.allocUnsafeSlow(64 << 10)

/** After these the members alive and suspect, their tags or zones may be others; after a lag anything may. */
const VIEW_EVENTS: ReadonlySet<NativeEvent['type']> = new Set([
  'memberJoined',
  'memberDied',
  'memberLeft',
  'memberUpdated',
  'memberRevived',
  'lagged',
])

type Phase = 'starting' | 'running' | 'leaving' | 'stopping' | 'stopped'

interface Waiter {
  readonly members: number
  settle(error?: Error): void
}

/** Which members to list. */
export interface MemberFilter {
  /** Default: alive and suspect. */
  liveness?: Liveness | 'all' | readonly Liveness[] | undefined
}

const natives = new WeakMap<object, NativeCluster>()

/** @internal The native side of a cluster, for fault injection. */
export function nativeOf(cluster: object): NativeCluster {
  const native = natives.get(cluster)
  if (native === undefined)
    throw new HearsayError('ERR_HEARSAY_ARGUMENT', `not a running cluster: ${show(cluster)}`)
  return native
}

function stoppedError(): HearsayError {
  return new HearsayError('ERR_HEARSAY_STOPPED', 'the cluster is stopped')
}

/**
 * One member of a cluster, running in this process. Heartbeats and probes are answered from a thread of its own, whether or not
 * JavaScript is busy.
 */
export class Cluster<S extends SchemaShape = AnySchema> extends EventEmitter<ClusterEvents> {
  /** The shared state. */
  readonly state: State<S>

  readonly #native: NativeCluster
  readonly #talk: Talk<S>
  readonly #options: CheckedOptions
  readonly #logger: Logger
  readonly #waiters = new Set<Waiter>()
  readonly #announcer: Announcer
  readonly #joining: Joining
  readonly #rings: Rings
  readonly #hold: NodeJS.Timeout
  readonly #ended: Promise<void>
  #end: () => void = () => {}
  #phase: Phase = 'starting'
  #starting: { resolve(): void; reject(error: Error): void } | undefined
  #self: Member | undefined
  /** Why the member stopped, if it did. */
  #why: Error | undefined
  #lastMetrics: Metrics | undefined
  /** Why nothing can be saved to disk at present. */
  #storageFailure = ''
  #grace: NodeJS.Timeout | undefined
  #releaseLoop: (() => void) | undefined

  /** Use {@link Cluster.start}. */
  private constructor(options: CheckedOptions) {
    super()
    this.#options = options
    this.#logger = options.logger ?? {}
    this.#announcer = new Announcer(this, (...line) => this.#log(...line))
    this.#joining = new Joining({
      begin: (seeds) => this.#call((native) => native.join(seeds)),
      check: () => this.#running(),
      alone: () => (this.#phase === 'running' ? this.size === 1 : undefined),
      failed: (failure) => this.#announcer.publish([{ type: 'seedFailed', ...failure }]),
      joinTimeoutMs: options.joinTimeoutMs,
    })
    this.#ended = new Promise((resolve) => {
      this.#end = resolve
    })
    try {
      this.#native = binding().NativeCluster.start(nativeOptions(options), this.#pump)
    } catch (error) {
      throw fromNative(error)
    }
    this.#hold = setInterval(() => {}, HOLD_MS)
    this.#releaseLoop = watchLoop()
    this.state = new State<S>({
      native: () => this.#running(),
      codec: options.codec,
      lagged: (count) => this.#announcer.lagged('watch', count),
      failed: (error) => this.#announcer.report(error),
      spread: (...wait) => this.#talk.spread(...wait),
    })
    this.#talk = new Talk<S>({
      native: () => this.#running(),
      codec: options.codec,
      failed: (error) => this.#announcer.report(error),
      responderFailed: (topic, error) => this.#log('warn', { topic, error }, 'a responder failed'),
    })
    this.#rings = new Rings(
      () => this.members(),
      (error) => this.#announcer.report(error),
    )
    natives.set(this, this.#native)
  }

  /**
   * Starts a member. Resolves when its sockets are bound and, given seeds, one has answered or each was tried once (at most
   * `joinTimeoutMs`). Rejects for a wrong option (`ERR_HEARSAY_OPTION`), a bind that fails (`ERR_HEARSAY_BIND`), a name in use
   * (`ERR_HEARSAY_NAME_CONFLICT`), an addon that cannot be loaded (`ERR_HEARSAY_ADDON`), an aborted signal.
   */
  static async start<S extends SchemaShape = AnySchema>(options?: ClusterOptions): Promise<Cluster<S>> {
    const checked = checkClusterOptions(options)
    throwIfAborted(checked.signal)
    const cluster = new Cluster<S>(checked)
    await cluster.#start()
    return cluster
  }

  /** This member, as it stands in its own view. */
  get self(): Member {
    if (this.#phase === 'running' || this.#phase === 'leaving')
      this.#self = readMember(this.#native.me()) ?? this.#self
    if (this.#self === undefined) throw stoppedError()
    return this.#self
  }

  /** Members in order of name: alive and suspect, self included, or those of the liveness asked for. */
  members(filter?: MemberFilter): Member[] {
    const wanted = checkLiveness(filter)
    const members = readMembers(this.#call((native) => native.members())).filter((member) =>
      wanted.has(member.liveness),
    )
    return members.sort((a, b) => (a.name < b.name ? -1 : a.name > b.name ? 1 : 0))
  }

  /** The member of this name, of any liveness; undefined if unknown. */
  member(name: string): Member | undefined {
    checkName(name)
    return readMember(this.#call((native) => native.member(name)))
  }

  /** Number of members alive and suspect, self included. */
  get size(): number {
    return this.#call((native) => native.living())
  }

  /**
   * Resolves once `size` is at least `members`. Rejects with `ERR_HEARSAY_TIMEOUT` after `timeoutMs` (30,000),
   * `ERR_HEARSAY_STOPPED`, or an `AbortError`.
   */
  async waitFor(options: { members: number; timeoutMs?: number; signal?: AbortSignal }): Promise<void> {
    const { members, timeoutMs = 30_000, signal } = checkWait(options, 'waitFor')
    if (members === undefined) throw new HearsayError('ERR_HEARSAY_ARGUMENT', 'waitFor.members is missing')
    throwIfAborted(signal)
    if (this.size >= members) return
    await new Promise<void>((resolve, reject) => {
      const abort = (): void => waiter.settle(new AbortError(signal?.reason))
      const timer = setTimeout(() => {
        const size = this.#phase === 'running' ? this.size : 0
        const message = `waited ${timeoutMs} ms for ${members} members, there are ${size}`
        waiter.settle(new HearsayError('ERR_HEARSAY_TIMEOUT', message))
      }, timeoutMs)
      const waiter: Waiter = {
        members,
        settle: (error) => {
          this.#waiters.delete(waiter)
          clearTimeout(timer)
          signal?.removeEventListener('abort', abort)
          if (error === undefined) resolve()
          else reject(error)
        },
      }
      signal?.addEventListener('abort', abort, { once: true })
      this.#waiters.add(waiter)
    })
  }

  /**
   * How suspicious a member is: on a watch edge the phi of its window now, without one null while it is alive; the largest phi
   * its accusers sent while suspect; Infinity when dead; 0 for self; null when left or unknown.
   */
  phi(name: string): number | null {
    checkName(name)
    return this.#call((native) => native.phi(name))
  }

  /** Adds a lasting watch edge to a member, so that its phi is live; returns a function that ends it. */
  observe(name: string): () => void {
    checkName(name)
    this.#call((native) => native.observe(name))
    let ended = false
    return () => {
      if (!ended && (this.#phase === 'running' || this.#phase === 'leaving')) {
        this.#call((native) => native.unobserve(name))
      }
      ended = true
    }
  }

  /**
   * Joins by these seeds. Resolves when one has answered or each was tried once; failures are `seedFailed` events. An aborted signal
   * ends the wait with an `AbortError`, not the seeds: they are knocked at as those of `start` are.
   */
  async join(seeds: readonly string[], options?: { signal?: AbortSignal }): Promise<void> {
    const list = seedList(seeds, 'seeds')
    const { signal } = checkWait(options, 'join')
    throwIfAborted(signal)
    this.#running()
    await untilAborted(this.#joining.join(list), signal)
  }

  /** Replaces the tags of this member. They hold at once and spread by themselves: nothing is waited for. Throws `ERR_HEARSAY_TAGS`. */
  async updateTags(tags: Readonly<Record<string, string>>): Promise<void> {
    const checked = checkTags(tags, 'tags')
    this.#call((native) => native.updateTags(Object.entries(checked).flat()))
  }

  /**
   * Says something to all members, self included: each subscriber of the topic gets it once, in the order of this sender. Members
   * cut off get it after the heal, within `broadcastRetentionMs`. Throws `ERR_HEARSAY_TOPIC`, `ERR_HEARSAY_VALUE`,
   * `ERR_HEARSAY_CODEC`, `ERR_HEARSAY_STORE_FULL`.
   */
  broadcast<T extends TopicOf<S>>(topic: T, payload: PayloadOf<S, T>): Sent {
    return this.#talk.broadcast(topic, payload)
  }

  /** Hears broadcasts and mail of a topic from now on; returns a function that ends it. Throws `ERR_HEARSAY_TOPIC`. */
  subscribe<T extends TopicOf<S>>(
    topic: T,
    handler: (payload: PayloadOf<S, T>, sender: Sender) => unknown,
  ): () => void {
    return this.#talk.subscribe(topic, handler)
  }

  /**
   * Sends to one member, whose subscribers of the topic get it at most once. Resolves when its process has it. Rejects with
   * `ERR_HEARSAY_TIMEOUT` after `timeoutMs` (5,000), `ERR_HEARSAY_UNKNOWN_MEMBER`, `ERR_HEARSAY_STOPPED`, an `AbortError`, and as
   * `broadcast` throws.
   */
  async send<T extends TopicOf<S>>(
    member: string,
    topic: T,
    payload: PayloadOf<S, T>,
    options?: WaitOptions,
  ): Promise<void> {
    await this.#talk.send(member, topic, payload, options)
  }

  /**
   * Asks every live member the filter matches, self included if it responds. Answers come as they arrive; a responder that throws
   * as `error` with code `ERR_HEARSAY_RESPONDER`, and last those that have not answered after `timeoutMs` (5,000), with
   * `ERR_HEARSAY_NO_ANSWER`. Members without a responder are left out. Throws as `broadcast`; `ERR_HEARSAY_TAGS`.
   */
  query<T extends QueryOf<S>>(
    topic: T,
    payload: QueryPayloadOf<S, T>,
    options?: QueryOptions,
  ): AsyncIterableIterator<Answer<AnswerOf<S, T>>, undefined, undefined> {
    return this.#talk.query(topic, payload, options)
  }

  /** Answers the queries of a topic, one responder each; returns a function that ends it. Throws `ERR_HEARSAY_TOPIC`. */
  respond<T extends QueryOf<S>>(
    topic: T,
    responder: (payload: QueryPayloadOf<S, T>, sender: Sender) => AnswerOf<S, T> | Promise<AnswerOf<S, T>>,
  ): () => void {
    return this.#talk.respond(topic, responder)
  }

  /**
   * A consistent-hash ring over the members that are alive or suspect and match the filter, which follows the view until `close`.
   * Throws `ERR_HEARSAY_OPTION`, `ERR_HEARSAY_TAGS`, `ERR_HEARSAY_ARGUMENT` for more than 16.7 million points.
   */
  ring(options?: RingOptions): ClusterRing {
    this.#running()
    return this.#rings.open(options)
  }

  /** Hex Merkle root of the replica: members and state. Equal roots mean equal replicas. */
  root(): string {
    return this.#call((native) => native.root())
  }

  /** Counters and present values, as they are now; after the end, as they were when it was asked for. */
  metrics(): Metrics {
    if (this.#phase === 'running' || this.#phase === 'leaving') return this.#metrics()
    if (this.#lastMetrics === undefined) throw stoppedError()
    return structuredClone(this.#lastMetrics)
  }

  /** Whether this member can do its work, and why not. */
  health(): Health {
    const reasons: string[] = []
    if (this.#phase !== 'running') {
      reasons.push(`the member is ${this.#phase}`)
    } else {
      const { clock, store } = JSON.parse(this.#call((native) => native.metrics())) as Metrics
      const seeded = typeof this.#options.seeds === 'function' || this.#options.seeds.length > 0
      if (seeded && this.size === 1) reasons.push('no other member is known, though seeds were given')
      if (this.#storageFailure !== '') reasons.push(this.#storageFailure)
      if (store.full === 1) reasons.push('the store is full: new keys are refused')
      if (Math.abs(clock.offMs) > 10_000)
        reasons.push(`the wall clock is ${clock.offMs} ms off that of the others`)
    }
    return { healthy: reasons.length === 0, reasons }
  }

  /**
   * Events from now on, as one union on `type`. Bounded: a reader more than 1,024 behind loses the oldest, counted in the event
   * `lagged`. Ends when the cluster does; throws an `AbortError` when the signal is aborted.
   */
  events(options?: { signal?: AbortSignal }): AsyncIterableIterator<ClusterEvent> {
    const { signal } = checkWait(options, 'events')
    this.#running()
    return this.#announcer.stream(signal)
  }

  /** Lets the process exit though the cluster runs. */
  unref(): this {
    this.#hold.unref()
    return this
  }

  /** Holds the process again, as a started cluster does. */
  ref(): this {
    this.#hold.ref()
    return this
  }

  /**
   * Spreads the intent to leave, waits for it to spread (at most `timeoutMs`, 2,000), then frees everything. Idempotent. It cannot be
   * taken back, so it takes no signal: `stop` ends it at once.
   */
  async leave(options?: { timeoutMs?: number }): Promise<void> {
    const { timeoutMs = 2_000 } = checkWait(options, 'leave')
    if (this.#phase === 'running') {
      this.#phase = 'leaving'
      this.#remember()
      this.#expect(timeoutMs + STOP_GRACE_MS)
      try {
        this.#native.leave(timeoutMs)
      } catch {
        this.#native.stop()
      }
    }
    await this.#ended
  }

  /** Frees everything at once; others see a crash. Idempotent. */
  async stop(): Promise<void> {
    this.#stop(stoppedError())
    await this.#ended
  }

  /** Leaves. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.leave()
  }

  #running(): NativeCluster {
    if (this.#phase !== 'running' && this.#phase !== 'leaving') throw stoppedError()
    return this.#native
  }

  #call<T>(ask: (native: NativeCluster) => T): T {
    const native = this.#running()
    try {
      return ask(native)
    } catch (error) {
      throw fromNative(error)
    }
  }

  #metrics(): Metrics {
    const [waiting = 0, dropped = 0] = this.#native.eventCounts()
    const { healthy } = this.health()
    return {
      ...(JSON.parse(this.#native.metrics()) as Metrics),
      events: { waiting, dropped },
      js: { blockedMs: blockedMs() },
      healthy: healthy ? 1 : 0,
    }
  }

  /** Keeps what may be asked for after the end. */
  #remember(): void {
    try {
      this.#self = readMember(this.#native.me()) ?? this.#self
      this.#lastMetrics = this.#metrics()
    } catch {
      // The driver was faster; what was kept before stands.
    }
  }

  async #start(): Promise<void> {
    const { signal, seeds, bind, keys } = this.#options
    const started = new Promise<void>((resolve, reject) => {
      this.#starting = { resolve, reject }
    })
    signal?.addEventListener('abort', this.#abort, { once: true })
    const first = Array.isArray(seeds) && seeds.length > 0 ? this.#joining.wait() : undefined
    try {
      await started
      this.#checkStarted()
      const joined = new Promise<void>((resolve, reject) => {
        this.#starting = { resolve, reject }
      })
      if (!isLoopback(bind) && keys.length === 0) {
        this.#log(
          'warn',
          { bind },
          'bound to an address others can reach, without keys: anybody there can join',
        )
      }
      const tried = typeof seeds === 'function' ? this.#joining.first(seeds) : first
      if (tried === undefined) this.#starting?.resolve()
      else
        tried.then(
          () => this.#starting?.resolve(),
          (error) => this.#starting?.reject(error),
        )
      await joined
      this.#checkStarted()
    } finally {
      this.#starting = undefined
    }
    if (typeof seeds === 'function') this.#joining.again(seeds)
    setImmediate(this.#announcer.release)
  }

  /** A stop may come between the driver's word and the turn that hears it. */
  #checkStarted(): void {
    if (this.#phase !== 'running') throw this.#why ?? stoppedError()
  }

  readonly #abort = (): void => {
    this.#stop(new AbortError(this.#options.signal?.reason))
  }

  /** Takes over what the addon has packed. Called by it, once per burst. */
  readonly #pump = (): void => {
    const events: NativeEvent[] = []
    const until = performance.now() + 1
    for (;;) {
      const length = this.#native.drain(buffer)
      if (length === 0) break
      if (length < 0) {
        const small = buffer
        buffer = Buffer.allocUnsafeSlow(-length)
        readEvents(buffer, this.#native.drain(buffer), events)
        buffer = small
      } else {
        readEvents(buffer, length, events)
      }
      if (events.length >= TURN_EVENTS_MAX || performance.now() > until) {
        setImmediate(this.#pump)
        break
      }
    }
    this.#deliver(events)
  }

  #deliver(events: NativeEvent[]): void {
    const mute = this.#phase === 'stopping' || this.#phase === 'stopped'
    const batch: ClusterEvent[] = []
    const thrown: unknown[] = []
    let failure: HearsayError | undefined
    for (const event of events) {
      failure = this.#handle(event) ?? failure
      if (!mute) this.#talk.deliver(event, thrown)
      const told = mute ? undefined : toClusterEvent(event)
      if (told !== undefined) batch.push(told)
    }
    if (!mute) {
      if (events.some(({ type }) => VIEW_EVENTS.has(type))) this.#rings.follow(thrown)
      this.#announcer.publish(batch, thrown)
    }
    if (failure !== undefined) this.#stop(failure)
    if (events.some((event) => event.type === 'stopped')) this.#finish(stoppedError())
    this.#settleWaiters()
  }

  /** The cluster's own part of an event; an error if it is the end. */
  #handle(event: NativeEvent): HearsayError | undefined {
    switch (event.type) {
      case 'changed':
        this.state.deliver(event.change)
        return undefined
      case 'lagged':
        this.#announcer.dropped('events', event.events)
        this.#announcer.dropped('watch', event.changes)
        this.#announcer.dropped('broadcasts', event.messages)
        return undefined
      case 'started':
        if (this.#phase === 'starting') this.#phase = 'running'
        this.#starting?.resolve()
        return undefined
      case 'startFailed':
        this.#finish(fromNative(Object.assign(new Error(event.message), { code: event.code })))
        return undefined
      case 'joinEnded':
        this.#joining.ended()
        return undefined
      case 'flushed':
        this.state.flushed(event)
        return undefined
      case 'storage':
        this.#storageFailure = event.failure
        if (event.failure === '') this.#log('info', {}, 'storage works again')
        else this.#announcer.report(new HearsayError('ERR_HEARSAY_STORAGE', event.failure))
        return undefined
      case 'clockOff':
        this.#log('warn', { offMs: event.offMs }, 'the wall clock is off that of the other members')
        return undefined
      case 'nameConflict': {
        const { name, address } = event.member
        return new HearsayError(
          'ERR_HEARSAY_NAME_CONFLICT',
          `another member lives under the name ${name}, at ${address}`,
        )
      }
      case 'failed':
        return new HearsayError('ERR_HEARSAY_INTERNAL', event.reason)
      default:
        return undefined
    }
  }

  #settleWaiters(): void {
    if (this.#waiters.size === 0 || (this.#phase !== 'running' && this.#phase !== 'leaving')) return
    let size: number
    try {
      size = this.#native.living()
    } catch {
      return
    }
    for (const waiter of [...this.#waiters]) if (size >= waiter.members) waiter.settle()
  }

  /** Asks the driver for the end and tells who waits. */
  #stop(why: Error): void {
    if (this.#phase === 'stopping' || this.#phase === 'stopped') return
    if (this.#phase === 'running') this.#remember()
    this.#phase = 'stopping'
    this.#expect(STOP_GRACE_MS)
    this.#native.stop()
    this.#fall(why)
  }

  #expect(withinMs: number): void {
    clearTimeout(this.#grace)
    this.#grace = setTimeout(() => this.#finish(stoppedError()), withinMs)
  }

  /** Rejects whatever is pending and ends the iterators. */
  #fall(why: Error): void {
    this.#why ??= why
    this.#options.signal?.removeEventListener('abort', this.#abort)
    this.#starting?.reject(why)
    for (const waiter of [...this.#waiters]) waiter.settle(stoppedError())
    this.#joining.end()
    this.#announcer.end()
    this.state.end()
    this.#talk.end()
    this.#rings.end()
  }

  /** The driver has ended: frees what this side holds. */
  #finish(why: Error): void {
    if (this.#phase === 'stopped') return
    this.#phase = 'stopped'
    this.#fall(why)
    clearTimeout(this.#grace)
    clearInterval(this.#hold)
    this.#releaseLoop?.()
    this.#native.close()
    natives.delete(this)
    this.#end()
  }

  #log(level: 'debug' | 'info' | 'warn' | 'error', fields: object, message: string): void {
    try {
      this.#logger[level]?.({ cluster: this.#options.cluster, name: this.#options.name, ...fields }, message)
    } catch (error) {
      queueMicrotask(() => {
        throw error
      })
    }
  }
}

function checkName(name: unknown): asserts name is string {
  if (typeof name === 'string') return
  throw new HearsayError('ERR_HEARSAY_ARGUMENT', `a member is named by a string, got ${show(name)}`)
}
