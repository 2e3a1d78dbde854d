import { fromNative, HearsayError } from './errors.js'
import { binding, type NativePhi } from './native.js'
import { checkPhiOptions, show } from './options.js'
import type { PhiModel } from './types.js'

/** Options of a {@link PhiAccrualDetector}. Times are milliseconds. */
export interface PhiOptions {
  /** Default `normal`. */
  model?: PhiModel | undefined
  /** The phi from which on the watched is not available, > 0; default 8. */
  threshold?: number | undefined
  /** Intervals kept, 1..65536; default 1000. */
  windowSize?: number | undefined
  /** Floor of the deviation inside phi, >= 0; default 100. */
  minStdDevMs?: number | undefined
  /** Silence accepted on top of the mean, >= 0; default 0. */
  acceptablePauseMs?: number | undefined
  /** What the interval is thought to be before any was seen; without, phi is 0 before two heartbeats. */
  firstHeartbeatEstimateMs?: number | undefined
}

function refused(error: unknown, nowMs: unknown): HearsayError {
  if (typeof nowMs === 'number') return fromNative(error)
  return new HearsayError(
    'ERR_HEARSAY_ARGUMENT',
    `nowMs must be a number of milliseconds, got ${show(nowMs)}`,
  )
}

/**
 * A phi accrual failure detector (Hayashibara et al. 2004) for anything that sends heartbeats. The caller brings the time: any
 * monotonic clock in milliseconds. phi = -log10 of the probability that the next heartbeat comes later than now.
 */
export class PhiAccrualDetector {
  readonly #native: NativePhi

  /** Throws `ERR_HEARSAY_OPTION` with the option's name. */
  constructor(options?: PhiOptions) {
    const settings = checkPhiOptions(options)
    try {
      this.#native = binding().NativePhi.create(settings)
    } catch (error) {
      throw fromNative(error)
    }
  }

  /** Records a heartbeat. Throws `ERR_HEARSAY_TIME` for a time that is NaN, infinite or before the last heartbeat. */
  heartbeat(nowMs: number): void {
    try {
      this.#native.heartbeat(nowMs)
    } catch (error) {
      throw refused(error, nowMs)
    }
  }

  /** Phi at this time; 0 before two heartbeats. Throws as {@link heartbeat}. */
  phi(nowMs: number): number {
    try {
      return this.#native.phi(nowMs)
    } catch (error) {
      throw refused(error, nowMs)
    }
  }

  /** Whether phi is below the threshold. Throws as {@link heartbeat}. */
  isAvailable(nowMs: number): boolean {
    try {
      return this.#native.isAvailable(nowMs)
    } catch (error) {
      throw refused(error, nowMs)
    }
  }

  /** Mean of the window in milliseconds, as it is; 0 while it is empty. */
  get mean(): number {
    return this.#native.mean
  }

  /** Population standard deviation of the window in milliseconds, as it is, without the floor. */
  get stdDev(): number {
    return this.#native.stdDev
  }

  /** Intervals in the window. */
  get samples(): number {
    return this.#native.samples
  }
}
