import { HearsayError } from './errors.js'
import type { SeedFailed } from './events.js'
import { type SeedFunction, seedList } from './options.js'

/** Seeds of a function are asked for again while alone, at first after this, later after up to the other. */
const RESEED_FIRST_MS = 1_000
const RESEED_LAST_MS = 30_000

/** What joining needs of the cluster. */
export interface JoinHost {
  /** Begins a join by these seeds. Throws once the cluster has stopped. */
  begin(seeds: string[]): void
  /** Throws once the cluster is stopping. */
  check(): void
  /** Whether this member lives alone; undefined once it does not run. */
  alone(): boolean | undefined
  failed(failure: SeedFailed): void
  joinTimeoutMs: number
}

/** Joins, one after another, and the seeds of a function. */
export class Joining {
  readonly #host: JoinHost
  readonly #waiting: (() => void)[] = []
  #last: Promise<void> = Promise.resolve()
  #reseed: NodeJS.Timeout | undefined

  constructor(host: JoinHost) {
    this.#host = host
  }

  /** The addon says that a join has ended. */
  ended(): void {
    this.#waiting[0]?.()
  }

  /** Ends all waits and asks for no more seeds. */
  end(): void {
    clearTimeout(this.#reseed)
    for (const done of [...this.#waiting]) done()
  }

  /** Resolves at the next end of a join, at the latest a little after the time it may take. */
  wait(): Promise<void> {
    return new Promise((resolve) => {
      const done = (): void => {
        clearTimeout(timer)
        const at = this.#waiting.indexOf(done)
        if (at >= 0) this.#waiting.splice(at, 1)
        resolve()
      }
      const timer = setTimeout(done, this.#host.joinTimeoutMs + 100)
      this.#waiting.push(done)
    })
  }

  /** Joins by these seeds after the joins before it. */
  async join(seeds: string[]): Promise<void> {
    const turn = this.#last.then(() => this.#join(seeds))
    this.#last = turn.catch(() => {})
    await turn
  }

  async #join(seeds: string[]): Promise<void> {
    this.#host.check()
    if (seeds.length === 0) return
    const end = this.wait()
    this.#host.begin(seeds)
    await end
    this.#host.check()
  }

  /** Joins by what the user's function gives. */
  async first(seeds: SeedFunction): Promise<void> {
    await this.#join(await this.#ask(seeds))
  }

  /** What the user's function gives within the time of a join; a failure is an event. */
  async #ask(seeds: SeedFunction): Promise<string[]> {
    const { joinTimeoutMs } = this.#host
    let timer: NodeJS.Timeout | undefined
    try {
      const late = new Promise<never>((_, reject) => {
        timer = setTimeout(() => reject(new Error(`no answer in ${joinTimeoutMs} ms`)), joinTimeoutMs)
      })
      return seedList(await Promise.race([seeds(), late]), 'seeds()')
    } catch (cause) {
      const message = `the seed function failed: ${cause instanceof Error ? cause.message : String(cause)}`
      const error = new HearsayError('ERR_HEARSAY_SEED', message, { cause })
      this.#host.failed({ seed: 'seeds()', error })
      return []
    } finally {
      clearTimeout(timer)
    }
  }

  /** Asks the function again for as long as this member is alone, less and less often. */
  again(seeds: SeedFunction, afterMs: number = RESEED_FIRST_MS): void {
    this.#reseed = setTimeout(async () => {
      const alone = this.#host.alone()
      if (alone === undefined) return
      // A failure has been told as an event; a stop ends this anyway.
      if (alone)
        await this.#ask(seeds)
          .then((list) => this.join(list))
          .catch(() => {})
      if (this.#host.alone() !== undefined)
        this.again(seeds, alone ? Math.min(afterMs * 2, RESEED_LAST_MS) : RESEED_FIRST_MS)
    }, afterMs).unref()
  }
}
