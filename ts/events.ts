import { AbortError, HearsayError } from './errors.js'
import type { MemberEventName, NativeEvent } from './packed.js'
import type { Member, PartitionHealed } from './types.js'

/** A seed that failed; it is tried again. */
export interface SeedFailed {
  /** As the user wrote it. */
  seed: string
  error: HearsayError
}

/** What a slow reader was not given. */
export interface Lagged {
  /** `events` (iterators and, after a long block, listeners), `watch`, or `broadcasts` (and mail). */
  source: 'events' | 'watch' | 'broadcasts'
  /** How many; for `watch`, older values of keys whose newest value is given; for `broadcasts`, also those that never came. */
  dropped: number
}

/**
 * This member was cut off for longer than deletes are remembered (a day), so what it held could bring back what others have
 * deleted: it dropped that, took a new generation and pulls the state of the others. Watchers are told of dropped keys that do
 * not come back as deletes.
 */
export interface Rejoined {
  /** Keys that had a value and were last written over 12 hours ago. */
  dropped: number
}

/** The events of a cluster and the arguments of their listeners. */
export type ClusterEvents = { [K in MemberEventName]: [member: Member] } & {
  partitionHealed: [healed: PartitionHealed]
  seedFailed: [failure: SeedFailed]
  nameConflict: [other: Member]
  rejoined: [rejoined: Rejoined]
  lagged: [lagged: Lagged]
  error: [error: Error]
}

/** The events of a cluster as one union on `type`, as `events()` gives them. */
export type ClusterEvent =
  | { type: MemberEventName; member: Member }
  | ({ type: 'partitionHealed' } & PartitionHealed)
  | ({ type: 'seedFailed' } & SeedFailed)
  | { type: 'nameConflict'; member: Member }
  | ({ type: 'rejoined' } & Rejoined)
  | ({ type: 'lagged' } & Lagged)
  | { type: 'error'; error: Error }

/** What users are told of a native event; undefined for those that are between the addon and the cluster. */
export function toClusterEvent(event: NativeEvent): ClusterEvent | undefined {
  switch (event.type) {
    case 'partitionHealed':
      return { type: event.type, ...event.healed }
    case 'seedFailed': {
      const error = new HearsayError('ERR_HEARSAY_SEED', `${event.seed}: ${event.reason}`)
      return { type: event.type, seed: event.seed, error }
    }
    case 'failed':
      return { type: 'error', error: new HearsayError('ERR_HEARSAY_INTERNAL', event.reason) }
    case 'rejoined':
      return { type: event.type, dropped: event.dropped }
    case 'memberJoined':
    case 'memberSuspected':
    case 'memberRefuted':
    case 'memberDied':
    case 'memberLeft':
    case 'memberUpdated':
    case 'memberRevived':
    case 'nameConflict':
      return { type: event.type, member: event.member }
    default:
      return undefined
  }
}

/** How a {@link Stream} behaves. */
export interface StreamOptions<In, Out> {
  /** Items waiting at most. */
  max: number
  /** Makes what the reader gets. Undefined skips the item. */
  map(item: In): Out | undefined
  /**
   * With it, a full stream keeps the newest item of each key and drops older ones, so it holds at most one more item per key.
   * Without, it drops its oldest item.
   */
  keyOf?: (item: In) => string
  /** Items the reader will not get. */
  onDropped(count: number): void
  /** The reader has gone or the stream has ended. Called once, from the constructor if the signal is aborted already. */
  onClosed(stream: Stream<In, Out>): void
  signal?: AbortSignal | undefined
}

interface Reader<T> {
  resolve(result: IteratorResult<T, undefined>): void
  reject(error: unknown): void
}

/** A bounded queue that is read as an async iterator. It takes items from its making on, not from the first `next`. */
export class Stream<In, Out> implements AsyncIterableIterator<Out, undefined, undefined> {
  readonly #options: StreamOptions<In, Out>
  #items: In[] = []
  #head = 0
  readonly #newest = new Map<string, In>()
  readonly #readers: Reader<Out>[] = []
  #closed = false
  #failure: { error: unknown } | undefined

  constructor(options: StreamOptions<In, Out>) {
    this.#options = options
    if (options.signal?.aborted) this.#abort()
    else options.signal?.addEventListener('abort', this.#abort, { once: true })
  }

  readonly #abort = (): void => {
    this.#items = []
    this.#head = 0
    this.#newest.clear()
    this.#failure = { error: new AbortError(this.#options.signal?.reason) }
    this.end()
  }

  /** Queues an item, or gives it to who waits. */
  push(item: In): void {
    if (this.#closed) return
    if (this.#readers.length > 0) {
      const value = this.#options.map(item)
      if (value !== undefined) this.#readers.shift()?.resolve({ done: false, value })
      return
    }
    const { max, keyOf, onDropped } = this.#options
    if (keyOf !== undefined && (this.#newest.size > 0 || this.#waiting() >= max)) {
      const key = keyOf(item)
      if (this.#newest.delete(key)) onDropped(1)
      this.#newest.set(key, item)
      return
    }
    if (this.#waiting() >= max) {
      this.#shift()
      onDropped(1)
    }
    this.#items.push(item)
  }

  /** No more items: the reader gets what waits, then the end. */
  end(): void {
    if (this.#closed) return
    this.#closed = true
    this.#options.signal?.removeEventListener('abort', this.#abort)
    const failure = this.#failure
    for (const reader of this.#readers.splice(0)) {
      if (failure === undefined) {
        reader.resolve({ done: true, value: undefined })
      } else {
        this.#failure = undefined
        reader.reject(failure.error)
      }
    }
    this.#options.onClosed(this)
  }

  async next(): Promise<IteratorResult<Out, undefined>> {
    for (let item = this.#shift(); item !== undefined; item = this.#shift()) {
      const value = this.#options.map(item)
      if (value !== undefined) return { done: false, value }
    }
    if (this.#failure !== undefined) {
      const { error } = this.#failure
      this.#failure = undefined
      throw error
    }
    if (this.#closed) return { done: true, value: undefined }
    return new Promise((resolve, reject) => this.#readers.push({ resolve, reject }))
  }

  async return(): Promise<IteratorResult<Out, undefined>> {
    this.#items = []
    this.#head = 0
    this.#newest.clear()
    this.#failure = undefined
    this.end()
    return { done: true, value: undefined }
  }

  async throw(error: unknown): Promise<IteratorResult<Out, undefined>> {
    await this.return()
    throw error
  }

  [Symbol.asyncIterator](): this {
    return this
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.return()
  }

  #waiting(): number {
    return this.#items.length - this.#head
  }

  #shift(): In | undefined {
    if (this.#waiting() > 0) {
      const item = this.#items[this.#head++]
      if (this.#head >= 256 && this.#head * 2 >= this.#items.length) {
        this.#items = this.#items.slice(this.#head)
        this.#head = 0
      }
      return item
    }
    for (const [key, item] of this.#newest) {
      this.#newest.delete(key)
      return item
    }
    return undefined
  }
}
