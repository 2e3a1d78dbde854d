import type { EventEmitter } from 'node:events'
import { type ClusterEvent, type ClusterEvents, type Lagged, Stream } from './events.js'

/** Events an iterator may be behind. */
const EVENTS_MAX = 1_024

/** Writes one line to the user's logger. */
export type Log = (level: 'debug' | 'info' | 'warn' | 'error', fields: object, message: string) => void

/** Tells users what happens: the listeners of a cluster, its `events()` iterators and its logger. */
export class Announcer {
  readonly #emitter: EventEmitter<ClusterEvents>
  readonly #log: Log
  readonly #streams = new Set<Stream<ClusterEvent, ClusterEvent>>()
  /** Events before the first turn after start, in order. */
  #held: ClusterEvent[] | undefined = []
  readonly #lag = { events: 0, watch: 0, broadcasts: 0 }

  constructor(emitter: EventEmitter<ClusterEvents>, log: Log) {
    this.#emitter = emitter
    this.#log = log
  }

  /** Events from now on, held back ones included, as an iterator. */
  stream(signal: AbortSignal | undefined): Stream<ClusterEvent, ClusterEvent> {
    let closed = false
    const stream: Stream<ClusterEvent, ClusterEvent> = new Stream({
      max: EVENTS_MAX,
      signal,
      map: (event) => event,
      onDropped: (count) => this.lagged('events', count),
      onClosed: (stream) => {
        closed = true
        this.#streams.delete(stream)
      },
    })
    if (!closed) this.#streams.add(stream)
    return stream
  }

  /** Hands events to listeners and iterators; what a listener throws comes up when all have had theirs. */
  publish(batch: ClusterEvent[], thrown: unknown[] = []): void {
    for (const source of ['events', 'watch', 'broadcasts'] as const) {
      if (this.#lag[source] > 0) batch.push({ type: 'lagged', source, dropped: this.#lag[source] })
      this.#lag[source] = 0
    }
    this.#held?.push(...batch)
    for (const event of this.#held === undefined ? batch : []) {
      for (const stream of this.#streams) stream.push(event)
      try {
        this.#emit(event)
      } catch (error) {
        thrown.push(error)
      }
    }
    for (const error of thrown) {
      queueMicrotask(() => {
        throw error
      })
    }
  }

  /** Publishes what was held back since the start; from now on events go out at once. */
  readonly release = (): void => {
    const held = this.#held ?? []
    this.#held = undefined
    this.publish(held)
  }

  /** Publishes an error. */
  report(error: Error): void {
    this.publish([{ type: 'error', error }])
  }

  /** Counts what a reader will not get; told with the next batch, or at once if none comes by itself. */
  lagged(source: 'events' | 'watch', count: number): void {
    if (this.#lag.events + this.#lag.watch === 0) setImmediate(() => this.publish([]))
    this.#lag[source] += count
  }

  /** Counts what the addon dropped; told with the batch it came in. */
  dropped(source: Lagged['source'], count: number): void {
    this.#lag[source] += count
  }

  /** Ends the iterators. */
  end(): void {
    for (const stream of [...this.#streams]) stream.end()
  }

  #emit(event: ClusterEvent): void {
    const emitter = this.#emitter
    switch (event.type) {
      case 'partitionHealed':
      case 'rejoined':
      case 'lagged': {
        const { type, ...fields } = event
        this.#log(type === 'partitionHealed' ? 'info' : 'warn', fields, type)
        emitter.emit(type, fields as never)
        break
      }
      case 'seedFailed':
        this.#log('warn', { seed: event.seed, error: event.error }, 'seedFailed')
        emitter.emit('seedFailed', { seed: event.seed, error: event.error })
        break
      case 'error':
        if (emitter.listenerCount('error') > 0) emitter.emit('error', event.error)
        else this.#log('error', { error: event.error }, event.error.message)
        break
      case 'nameConflict':
        this.#log('error', { other: event.member }, 'nameConflict')
        emitter.emit('nameConflict', event.member)
        break
      default:
        this.#log('debug', { member: event.member.name }, event.type)
        emitter.emit(event.type, event.member)
    }
  }
}
