import { AbortError, fromNative, HearsayError, throwIfAborted } from './errors.js'
import type { NativeCluster } from './native.js'
import { checkWait } from './options.js'
import type { NativeEvent } from './packed.js'

/** How long `flush` waits if it is not told. */
const WAIT_MS = 5_000

type Flushed = Extract<NativeEvent, { type: 'flushed' }>

/** Waits for writes to be on disk. */
export class Flushes {
  readonly #pending = new Map<number, (error?: Error) => void>()
  #number = 0

  async wait(native: NativeCluster, options: unknown): Promise<void> {
    const { timeoutMs = WAIT_MS, signal } = checkWait(options, 'flush')
    throwIfAborted(signal)
    const number = ++this.#number
    try {
      native.flush(number, timeoutMs)
    } catch (error) {
      throw fromNative(error)
    }
    await new Promise<void>((resolve, reject) => {
      const abort = (): void => settle(new AbortError(signal?.reason))
      const settle = (error?: Error): void => {
        this.#pending.delete(number)
        signal?.removeEventListener('abort', abort)
        if (error === undefined) resolve()
        else reject(error)
      }
      signal?.addEventListener('abort', abort, { once: true })
      this.#pending.set(number, settle)
    })
  }

  /** One wait has ended. */
  ended({ number, code, message }: Flushed): void {
    const error = code === '' ? undefined : fromNative(Object.assign(new Error(message), { code }))
    this.#pending.get(number)?.(error)
  }

  /** The cluster has ended. */
  end(): void {
    const error = new HearsayError('ERR_HEARSAY_STOPPED', 'the cluster is stopped')
    for (const settle of [...this.#pending.values()]) settle(error)
  }
}
