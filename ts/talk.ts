import { decode, encodeBytes } from './codec.js'
import { AbortError, fromNative, HearsayError, throwIfAborted } from './errors.js'
import { Stream } from './events.js'
import type { NativeCluster } from './native.js'
import { checkQuery, checkWait, show } from './options.js'
import type { NativeEvent, RawAnswer, RawMessage } from './packed.js'
import type {
  AnswerOf,
  AnySchema,
  Codec,
  PayloadOf,
  QueryOf,
  QueryPayloadOf,
  SchemaShape,
  TopicOf,
} from './types.js'

/** How long `send`, `query`, `spread` and `reached` wait if they are not told. */
const WAIT_MS = 5_000
/** Answers of a query that wait for their reader: one per member at most. */
const ANSWERS_MAX = 131_072
/** Longest text of a responder's error in characters. */
const ERROR_MAX = 4_096

const OK = 0
const NONE = 1
const FAILED = 2
const LOST = 3

/** How long a call waits. */
export interface WaitOptions {
  /** Default 5,000. */
  timeoutMs?: number | undefined
  /** Ends the wait with an `AbortError`. */
  signal?: AbortSignal | undefined
}

/** Whom a query asks, and how long it waits. */
export interface QueryOptions extends WaitOptions {
  /** Only members that have each of these tags. */
  filter?: { tags?: Readonly<Record<string, string>> | undefined } | undefined
}

/** Of which version, and how many others. */
export interface SpreadOptions extends WaitOptions {
  /** As `set` returned it; default: the newest known, a delete included. */
  version?: string | undefined
  /** How many others, self not counted. */
  members: number
}

/** How far a broadcast has come. */
export interface Reached {
  /** Members that hold it, self included. */
  members: number
  /** Members there were, self included. */
  of: number
}

/** A broadcast as its sender sees it. */
export interface Sent {
  /** As of `state.set`: it spreads later. */
  readonly backlogged: boolean
  /**
   * Resolves when all members that live at this call hold the broadcast, or after `timeoutMs` (5,000) with how many do. Rejects
   * with `ERR_HEARSAY_STOPPED` or an `AbortError`.
   */
  reached(options?: WaitOptions): Promise<Reached>
}

/** Who sent a message. */
export interface Sender {
  /** Name of the sending member. */
  from: string
}

/** What one member answered, or why it did not. */
export type Answer<V = unknown> =
  | { from: string; value: V; error?: undefined }
  | { from: string; error: HearsayError; value?: undefined }

/** @internal What the talk needs of its cluster. */
export interface TalkHost {
  /** The running member; throws `ERR_HEARSAY_STOPPED`. */
  native(): NativeCluster
  codec: Codec
  /** Something went wrong that no caller can be told. */
  failed(error: HearsayError): void
  /** A responder threw. */
  responderFailed(topic: string, error: unknown): void
}

type Handler = (payload: unknown, sender: Sender) => unknown
type Ended = Extract<NativeEvent, { type: 'mailEnded' | 'confirmed' }>

interface Pending {
  settle(outcome: Ended | Error): void
}

interface Asked {
  stream: Stream<RawAnswer, Answer>
}

const stopped = (): HearsayError => new HearsayError('ERR_HEARSAY_STOPPED', 'the cluster is stopped')

/** @internal Broadcasts, queries, mail and confirmations of one cluster. */
export class Talk<S extends SchemaShape = AnySchema> {
  readonly #host: TalkHost
  readonly #handlers = new Map<string, Set<{ handler: Handler }>>()
  readonly #responders = new Map<string, Handler>()
  readonly #pending = new Map<string, Pending>()
  readonly #asked = new Map<number, Asked>()

  constructor(host: TalkHost) {
    this.#host = host
  }

  broadcast<T extends TopicOf<S>>(topic: T, payload: PayloadOf<S, T>): Sent {
    const bytes = this.#encode(checkTopic(topic), payload)
    const { number, version, backlogged } = call(this.#host.native(), (n) => n.broadcast(topic, bytes))
    const reached = async (options?: WaitOptions): Promise<Reached> => {
      const { timeoutMs = WAIT_MS, signal } = checkWait(options, 'reached')
      const { count, of } = await this.#confirmed((n) => n.reached(number, version, timeoutMs), signal)
      return { members: count, of }
    }
    return { backlogged, reached }
  }

  subscribe<T extends TopicOf<S>>(
    topic: T,
    handler: (payload: PayloadOf<S, T>, sender: Sender) => unknown,
  ): () => void {
    checkHandler(handler)
    const native = this.#host.native()
    let handlers = this.#handlers.get(checkTopic(topic))
    if (handlers === undefined) {
      call(native, (n) => n.subscribe(topic))
      handlers = new Set()
      this.#handlers.set(topic, handlers)
    }
    const mine = { handler: handler as Handler }
    handlers.add(mine)
    return () => {
      const present = this.#handlers.get(topic)
      if (present?.delete(mine) !== true || present.size > 0) return
      this.#handlers.delete(topic)
      this.#quietly((n) => n.unsubscribe(topic))
    }
  }

  async send<T extends TopicOf<S>>(
    member: string,
    topic: T,
    payload: PayloadOf<S, T>,
    options?: WaitOptions,
  ): Promise<void> {
    const { timeoutMs = WAIT_MS, signal } = checkWait(options, 'send')
    if (typeof member !== 'string') {
      throw new HearsayError('ERR_HEARSAY_ARGUMENT', `a member is named by a string, got ${show(member)}`)
    }
    const bytes = this.#encode(checkTopic(topic), payload)
    throwIfAborted(signal)
    const number = call(this.#host.native(), (n) => n.send(member, topic, bytes, timeoutMs))
    const ended = await this.#wait(`mail ${number}`, (n) => n.cancelSend(number), signal)
    if (ended.type === 'mailEnded' && !ended.delivered) {
      throw new HearsayError('ERR_HEARSAY_TIMEOUT', `${member} has not confirmed within ${timeoutMs} ms`)
    }
  }

  query<T extends QueryOf<S>>(
    topic: T,
    payload: QueryPayloadOf<S, T>,
    options?: QueryOptions,
  ): AsyncIterableIterator<Answer<AnswerOf<S, T>>, undefined, undefined> {
    const { timeoutMs = WAIT_MS, signal, filter } = checkQuery(options, 'query')
    const bytes = this.#encode(checkTopic(topic), payload)
    const native = this.#host.native()
    let number: number | undefined
    let closed = false
    const stream: Stream<RawAnswer, Answer> = new Stream({
      max: ANSWERS_MAX,
      signal,
      map: (raw) => this.#answer(topic, timeoutMs, raw),
      onDropped: () => {},
      onClosed: () => {
        closed = true
        if (number !== undefined && this.#asked.delete(number)) {
          const mine = number
          this.#quietly((n) => n.cancelQuery(mine))
        }
      },
    })
    if (!closed) {
      const tags = Object.entries(filter?.tags ?? {}).flat()
      try {
        number = call(native, (n) => n.query(topic, bytes, tags, timeoutMs))
      } catch (error) {
        stream.end()
        throw error
      }
      this.#asked.set(number, { stream })
    }
    return stream as unknown as AsyncIterableIterator<Answer<AnswerOf<S, T>>, undefined, undefined>
  }

  respond<T extends QueryOf<S>>(
    topic: T,
    responder: (payload: QueryPayloadOf<S, T>, sender: Sender) => AnswerOf<S, T> | Promise<AnswerOf<S, T>>,
  ): () => void {
    checkHandler(responder)
    if (this.#responders.has(checkTopic(topic))) {
      throw new HearsayError('ERR_HEARSAY_ARGUMENT', `queries of '${topic}' have a responder here already`)
    }
    call(this.#host.native(), (n) => n.respond(topic))
    this.#responders.set(topic, responder as Handler)
    return () => {
      if (this.#responders.get(topic) !== responder) return
      this.#responders.delete(topic)
      this.#quietly((n) => n.unrespond(topic))
    }
  }

  /** Resolves when enough others hold a version of a key, or a newer one. */
  async spread(
    key: string,
    version: string | undefined,
    members: number,
    timeoutMs: number = WAIT_MS,
    signal?: AbortSignal,
  ): Promise<void> {
    const begin = (n: NativeCluster): number => n.spread(key, version, members, timeoutMs)
    const { count, of } = await this.#confirmed(begin, signal)
    if (count < of) {
      const message = `${count} of ${of} others confirmed '${key}' within ${timeoutMs} ms`
      throw new HearsayError('ERR_HEARSAY_TIMEOUT', message)
    }
  }

  /** Takes over an event; what handlers throw is added to `thrown`. */
  deliver(event: NativeEvent, thrown: unknown[]): void {
    switch (event.type) {
      case 'broadcast':
      case 'mail':
        this.#hand(event.message, thrown)
        break
      case 'query':
        void this.#respond(event.query, event.message)
        break
      case 'answer':
        this.#asked.get(event.query)?.stream.push(event.answer)
        break
      case 'queryEnded': {
        const asked = this.#asked.get(event.query)
        this.#asked.delete(event.query)
        for (const from of event.silent) asked?.stream.push({ from, status: LOST, bytes: Buffer.alloc(0) })
        asked?.stream.end()
        break
      }
      case 'mailEnded':
        this.#pending.get(`mail ${event.number}`)?.settle(event)
        break
      case 'confirmed':
        this.#pending.get(`confirm ${event.waiter}`)?.settle(event)
        break
    }
  }

  /** The cluster has ended: promises reject, loops finish. */
  end(): void {
    for (const pending of [...this.#pending.values()]) pending.settle(stopped())
    const streams = [...this.#asked.values()].map(({ stream }) => stream)
    this.#asked.clear()
    for (const stream of streams) stream.end()
    this.#handlers.clear()
    this.#responders.clear()
  }

  async #confirmed(
    begin: (native: NativeCluster) => number,
    signal: AbortSignal | undefined,
  ): Promise<{ count: number; of: number }> {
    throwIfAborted(signal)
    const waiter = call(this.#host.native(), begin)
    const ended = await this.#wait(`confirm ${waiter}`, (n) => n.cancelConfirm(waiter), signal)
    return ended.type === 'confirmed' ? ended : { count: 0, of: 0 }
  }

  #wait(
    key: string,
    cancel: (native: NativeCluster) => void,
    signal: AbortSignal | undefined,
  ): Promise<Ended> {
    return new Promise((resolve, reject) => {
      const abort = (): void => {
        this.#quietly(cancel)
        settle(new AbortError(signal?.reason))
      }
      const settle = (outcome: Ended | Error): void => {
        this.#pending.delete(key)
        signal?.removeEventListener('abort', abort)
        if (outcome instanceof Error) reject(outcome)
        else resolve(outcome)
      }
      signal?.addEventListener('abort', abort, { once: true })
      this.#pending.set(key, { settle })
    })
  }

  #encode(topic: string, payload: unknown): Uint8Array {
    return encodeBytes(this.#host.codec, `the payload of '${topic}'`, payload)
  }

  #hand({ from, topic, bytes }: RawMessage, thrown: unknown[]): void {
    const handlers = this.#handlers.get(topic)
    if (handlers === undefined) return
    let payload: unknown
    try {
      payload = decode(this.#host.codec, `the payload of '${topic}' from ${from}`, bytes)
    } catch (error) {
      this.#host.failed(fromNative(error))
      return
    }
    for (const { handler } of [...handlers]) {
      try {
        handler(payload, { from })
      } catch (error) {
        thrown.push(error)
      }
    }
  }

  async #respond(query: number, { from, topic, bytes }: RawMessage): Promise<void> {
    const responder = this.#responders.get(topic)
    const say = (status: number, answer: Uint8Array): void => {
      this.#host.native().answer(query, status, answer)
    }
    try {
      if (responder === undefined) return say(NONE, Buffer.alloc(0))
      const payload = decode(this.#host.codec, `the payload of '${topic}'`, bytes)
      const answer = await responder(payload, { from })
      say(OK, encodeBytes(this.#host.codec, `the answer to '${topic}'`, answer))
    } catch (error) {
      this.#quietly(() => {
        this.#host.responderFailed(topic, error)
        const message = error instanceof Error ? error.message : String(error)
        say(FAILED, Buffer.from(message.slice(0, ERROR_MAX)))
      })
    }
  }

  #answer(topic: string, timeoutMs: number, { from, status, bytes }: RawAnswer): Answer {
    if (status === OK) {
      try {
        return { from, value: decode(this.#host.codec, `the answer of ${from} to '${topic}'`, bytes) }
      } catch (error) {
        return { from, error: fromNative(error) }
      }
    }
    const error =
      status === FAILED
        ? new HearsayError('ERR_HEARSAY_RESPONDER', bytes.toString('utf8'))
        : new HearsayError('ERR_HEARSAY_NO_ANSWER', `no answer of ${from} within ${timeoutMs} ms`)
    return { from, error }
  }

  /** A call whose failure nobody needs to hear of: the cluster is ending. */
  #quietly(act: (native: NativeCluster) => void): void {
    try {
      act(this.#host.native())
    } catch {
      // Stopped: everything is freed with it.
    }
  }
}

function call<R>(native: NativeCluster, act: (native: NativeCluster) => R): R {
  try {
    return act(native)
  } catch (error) {
    throw fromNative(error)
  }
}

function checkTopic(topic: unknown): string {
  if (typeof topic === 'string' && topic.isWellFormed()) return topic
  throw new HearsayError('ERR_HEARSAY_ARGUMENT', `topic must be a well-formed string, got ${show(topic)}`)
}

function checkHandler(handler: unknown): void {
  if (typeof handler === 'function') return
  throw new HearsayError('ERR_HEARSAY_ARGUMENT', `the handler must be a function, got ${show(handler)}`)
}
