import { decode, encode } from './codec.js'
import { fromNative, HearsayError } from './errors.js'
import { Stream } from './events.js'
import { Flushes } from './flush.js'
import type { NativeCluster } from './native.js'
import { checkSpread, nearest, show } from './options.js'
import { type NativeEvent, type RawChange, readEntries, readKeys } from './packed.js'
import type { SpreadOptions, WaitOptions } from './talk.js'
import type { AnySchema, Codec, KeyOf, SchemaShape, StateChange, ValueOf, Written } from './types.js'

/** Changes a watcher may be behind before older values of a key give way to the newest. */
const WATCH_MAX = 1_024
/** Kind of a packed entry that another follows. */
const MORE = 1

/** Options of a write. */
export interface WriteOptions {
  /** Lifetime in milliseconds, 1..31536000000000; without, the key stays until it is deleted. */
  ttlMs?: number | undefined
}

/** Which keys to list. */
export interface PrefixOptions {
  /** Only keys that begin with it. */
  prefix?: string | undefined
}

/** Options of `watch`. */
export interface WatchOptions {
  /** Ends the loop with an `AbortError`. */
  signal?: AbortSignal | undefined
}

/** @internal What the state needs of its cluster. */
export interface StateHost {
  /** The running member; throws `ERR_HEARSAY_STOPPED`. */
  native(): NativeCluster
  codec: Codec
  /** A watcher will not get so many older values. */
  lagged(count: number): void
  /** Something went wrong that no caller can be told. */
  failed(error: HearsayError): void
  /** Resolves when so many others hold a version of a key, or a newer one. */
  spread(
    key: string,
    version: string | undefined,
    members: number,
    timeoutMs: number | undefined,
    signal: AbortSignal | undefined,
  ): Promise<void>
}

type Watcher = Stream<RawChange, StateChange>

/** The shared state: a map of the whole cluster, read and written on the local replica. */
export class State<S extends SchemaShape = AnySchema> {
  readonly #host: StateHost
  readonly #watchers = new Map<Watcher, string>()
  readonly #flushes = new Flushes()

  /** @internal Made by `Cluster.start`. */
  constructor(host: StateHost) {
    this.#host = host
  }

  /**
   * Writes a key on the local replica; its rumor starts at once. Throws `ERR_HEARSAY_KEY`, `ERR_HEARSAY_VALUE`,
   * `ERR_HEARSAY_CODEC`, `ERR_HEARSAY_STORE_FULL`.
   */
  set<K extends KeyOf<S>>(key: K, value: ValueOf<S, K>, options?: WriteOptions): Written {
    checkKey(key)
    const ttlMs = options === undefined ? undefined : checkTtl(options)
    const encoded = this.#encode(key, value)
    const native = this.#host.native()
    let done: string
    try {
      done =
        typeof encoded === 'string'
          ? native.setText(key, encoded, ttlMs)
          : native.setBytes(key, encoded, ttlMs)
    } catch (error) {
      throw fromNative(error)
    }
    return { version: done.slice(0, 32), backlogged: done.length > 32 }
  }

  /** The newest known value; undefined if there is none. Throws `ERR_HEARSAY_CODEC` if it cannot be decoded. */
  get<K extends KeyOf<S>>(key: K): ValueOf<S, K> | undefined {
    checkKey(key)
    const json = this.#host.codec === 'json'
    const encoded = this.#call((native) => (json ? native.getText(key) : native.getBytes(key)))
    return encoded === null ? undefined : (this.#decode(key, encoded) as ValueOf<S, K>)
  }

  /** Whether the key has a value. */
  has(key: KeyOf<S>): boolean {
    checkKey(key)
    return this.#call((native) => native.has(key))
  }

  /** Deletes a key; says whether it was there. Throws `ERR_HEARSAY_KEY`. */
  delete(key: KeyOf<S>): boolean {
    checkKey(key)
    return this.#call((native) => native.delete(key))
  }

  /** The keys, in key order. */
  keys(options?: PrefixOptions): KeyOf<S>[] {
    const keys: string[] = []
    for (const page of this.#pages(options, false)) {
      for (const key of readKeys(page)) keys.push(key)
    }
    return keys as KeyOf<S>[]
  }

  /** Keys and values, in key order. Throws `ERR_HEARSAY_CODEC` if one cannot be decoded. */
  entries(options?: PrefixOptions): [KeyOf<S>, ValueOf<S, KeyOf<S>>][] {
    const entries: [string, unknown][] = []
    for (const page of this.#pages(options, true)) {
      for (const [key, bytes] of readEntries(page)) entries.push([key, this.#decode(key, bytes)])
    }
    return entries as [KeyOf<S>, ValueOf<S, KeyOf<S>>][]
  }

  /** Number of keys that have a value. */
  get size(): number {
    return this.#call((native) => native.length())
  }

  /**
   * Changes of the keys that begin with `prefix`, from now on. Per key they never go back; a slow reader gets the newest value
   * per key, and what it was not given is counted in the event `lagged`.
   */
  watch(
    prefix = '',
    options?: WatchOptions,
  ): AsyncIterableIterator<StateChange<KeyOf<S>, ValueOf<S, KeyOf<S>>>> {
    if (typeof prefix !== 'string') {
      throw new HearsayError('ERR_HEARSAY_ARGUMENT', `prefix must be a string, got ${show(prefix)}`)
    }
    const signal = checkNames(options, 'watch', ['signal']).signal
    if (signal !== undefined && !(signal instanceof AbortSignal)) {
      throw new HearsayError(
        'ERR_HEARSAY_ARGUMENT',
        `watch.signal must be an AbortSignal, got ${show(signal)}`,
      )
    }
    const native = this.#host.native()
    let closed = false
    const watcher: Watcher = new Stream({
      max: WATCH_MAX,
      signal,
      keyOf: (raw) => raw.key,
      map: (raw) => this.#change(raw),
      onDropped: (count) => this.#host.lagged(count),
      onClosed: (watcher) => {
        closed = true
        if (this.#watchers.delete(watcher) && this.#watchers.size === 0) native.watch(false)
      },
    })
    if (!closed) {
      if (this.#watchers.size === 0) native.watch(true)
      this.#watchers.set(watcher, prefix)
    }
    return watcher as AsyncIterableIterator<StateChange<KeyOf<S>, ValueOf<S, KeyOf<S>>>>
  }

  /**
   * Resolves when `members` others confirm that they hold this version of a key or a newer one; without `version` the newest
   * known, a delete included. Rejects with `ERR_HEARSAY_TIMEOUT` after `timeoutMs` (5,000), `ERR_HEARSAY_KEY` if no version is
   * known, `ERR_HEARSAY_STOPPED`, or an `AbortError`.
   */
  async spread(key: KeyOf<S>, options: SpreadOptions): Promise<void> {
    checkKey(key)
    const { version, members, timeoutMs, signal } = checkSpread(options, 'spread')
    if (members === undefined) throw new HearsayError('ERR_HEARSAY_ARGUMENT', 'spread.members is missing')
    await this.#host.spread(key, version, members, timeoutMs, signal)
  }

  /**
   * With `storage`: resolves when every write made before, own and heard, is on disk and would survive a loss of power. Rejects with
   * `ERR_HEARSAY_STORAGE` if the disk fails or the cluster was started without storage, `ERR_HEARSAY_TIMEOUT` after `timeoutMs`
   * (5,000), `ERR_HEARSAY_STOPPED`, or an `AbortError`.
   */
  async flush(options?: WaitOptions): Promise<void> {
    await this.#flushes.wait(this.#host.native(), options)
  }

  /** @internal A flush has ended. */
  flushed(event: Extract<NativeEvent, { type: 'flushed' }>): void {
    this.#flushes.ended(event)
  }

  /** @internal Hands a change to who watches its key. */
  deliver(change: RawChange): void {
    for (const [watcher, prefix] of this.#watchers) {
      if (change.key.startsWith(prefix)) watcher.push(change)
    }
  }

  /** @internal Ends all watchers and flushes. */
  end(): void {
    for (const watcher of [...this.#watchers.keys()]) watcher.end()
    this.#flushes.end()
  }

  #call<T>(ask: (native: NativeCluster) => T): T {
    const native = this.#host.native()
    try {
      return ask(native)
    } catch (error) {
      throw fromNative(error)
    }
  }

  #change(raw: RawChange): StateChange | undefined {
    const { type, key, version, origin } = raw
    if (type !== 'set') return { type, key, value: undefined, version, origin }
    try {
      return { type, key, value: this.#decode(key, raw.bytes), version, origin }
    } catch (error) {
      this.#host.failed(fromNative(error))
      return undefined
    }
  }

  *#pages(options: PrefixOptions | undefined, values: boolean): Generator<Buffer, void> {
    const prefix = checkNames(options, 'options', ['prefix']).prefix ?? ''
    if (typeof prefix !== 'string') {
      throw new HearsayError('ERR_HEARSAY_ARGUMENT', `prefix must be a string, got ${show(prefix)}`)
    }
    // Bytes, as a key of a foreign writer need not be UTF-8.
    let after: Buffer | undefined
    for (;;) {
      const page = this.#call((native) => native.scan(prefix, after, values))
      if (page.length === 0) return
      yield page
      const last = lastRecord(page)
      if (page[last + 4] !== MORE) return
      after = page.subarray(last + 9, last + 9 + page.readUInt32LE(last + 5))
    }
  }

  #encode(key: string, value: unknown): string | Uint8Array {
    return encode(this.#host.codec, `the value of '${key}'`, value)
  }

  #decode(key: string, encoded: string | Buffer): unknown {
    return decode(this.#host.codec, `the value of '${key}'`, encoded)
  }
}

/** Where the last record of a page begins. */
function lastRecord(page: Buffer): number {
  let at = 0
  for (;;) {
    const next = at + 4 + page.readUInt32LE(at)
    if (next >= page.length) return at
    at = next
  }
}

function checkKey(key: unknown): asserts key is string {
  if (typeof key !== 'string' || !key.isWellFormed()) {
    throw new HearsayError('ERR_HEARSAY_ARGUMENT', `key must be a well-formed string, got ${show(key)}`)
  }
}

function checkNames(options: unknown, path: string, known: string[]): Record<string, unknown> {
  if (options === undefined) return {}
  if (typeof options !== 'object' || options === null) {
    throw new HearsayError('ERR_HEARSAY_ARGUMENT', `${path} must be an object, got ${show(options)}`)
  }
  for (const name of Object.keys(options)) {
    if (!known.includes(name)) {
      throw new HearsayError(
        'ERR_HEARSAY_ARGUMENT',
        `unknown option ${name}; did you mean ${nearest(name, known)}?`,
      )
    }
  }
  return options as Record<string, unknown>
}

const TTL_MAX_MS = 31_536_000_000_000

function checkTtl(options: WriteOptions): number | undefined {
  const { ttlMs } = checkNames(options, 'options', ['ttlMs'])
  if (ttlMs === undefined) return undefined
  if (typeof ttlMs !== 'number' || !Number.isInteger(ttlMs) || ttlMs < 1 || ttlMs > TTL_MAX_MS) {
    throw new HearsayError(
      'ERR_HEARSAY_ARGUMENT',
      `ttlMs must be an integer in 1..${TTL_MAX_MS}, got ${show(ttlMs)}`,
    )
  }
  return ttlMs
}
