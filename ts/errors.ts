const CODES = [
  'ERR_HEARSAY_OPTION',
  'ERR_HEARSAY_ARGUMENT',
  'ERR_HEARSAY_ADDON',
  'ERR_HEARSAY_BIND',
  'ERR_HEARSAY_RESOLVE',
  'ERR_HEARSAY_NAME',
  'ERR_HEARSAY_NAME_CONFLICT',
  'ERR_HEARSAY_KEYS',
  'ERR_HEARSAY_KEY',
  'ERR_HEARSAY_VALUE',
  'ERR_HEARSAY_TAGS',
  'ERR_HEARSAY_STORE_FULL',
  'ERR_HEARSAY_STORAGE',
  'ERR_HEARSAY_OBSERVED',
  'ERR_HEARSAY_CODEC',
  'ERR_HEARSAY_TOPIC',
  'ERR_HEARSAY_BUSY',
  'ERR_HEARSAY_UNKNOWN_MEMBER',
  'ERR_HEARSAY_NO_ANSWER',
  'ERR_HEARSAY_RESPONDER',
  'ERR_HEARSAY_TIMEOUT',
  'ERR_HEARSAY_STOPPED',
  'ERR_HEARSAY_TIME',
  'ERR_HEARSAY_SEED',
  'ERR_HEARSAY_SYSTEM',
  'ERR_HEARSAY_INTERNAL',
] as const

/**
 * Every code a {@link HearsayError} can carry, with what it means.
 *
 * | code | meaning |
 * |---|---|
 * | `ERR_HEARSAY_OPTION` | an option is wrong or unknown; the message begins with its path |
 * | `ERR_HEARSAY_ARGUMENT` | an argument of a call has the wrong type or form |
 * | `ERR_HEARSAY_ADDON` | the native addon cannot be loaded or is of another version |
 * | `ERR_HEARSAY_BIND` | the address to bind is in use, not local, or not permitted |
 * | `ERR_HEARSAY_RESOLVE` | `bind` or `advertise` is a name that does not resolve |
 * | `ERR_HEARSAY_NAME` | a name is not 1..128 bytes of printable UTF-8 |
 * | `ERR_HEARSAY_NAME_CONFLICT` | another member lives under this name |
 * | `ERR_HEARSAY_KEYS` | the ring of cluster keys cannot be used or exchanged so |
 * | `ERR_HEARSAY_KEY` | a key is empty, over `limits.keyBytesMax`, begins with U+0000, or (`spread`) was never seen |
 * | `ERR_HEARSAY_VALUE` | a value, payload or answer is over `limits.valueBytesMax` once encoded |
 * | `ERR_HEARSAY_TAGS` | tags are over 512 bytes once encoded |
 * | `ERR_HEARSAY_STORE_FULL` | the replica is at `limits.entriesMax` or `limits.storeBytesMax` |
 * | `ERR_HEARSAY_STORAGE` | the store on disk cannot be used: in use, read-only, full, damaged, of another version or cluster; the message has path and cause |
 * | `ERR_HEARSAY_OBSERVED` | too many members are observed |
 * | `ERR_HEARSAY_CODEC` | a value or payload cannot be encoded, or what came cannot be decoded |
 * | `ERR_HEARSAY_TOPIC` | a topic has not 1..256 bytes |
 * | `ERR_HEARSAY_BUSY` | too many topics, queries, sends or waits at once; the message has the limit |
 * | `ERR_HEARSAY_UNKNOWN_MEMBER` | no member of this name is known, or it has left |
 * | `ERR_HEARSAY_NO_ANSWER` | a member has not answered a query in time (only inside an answer) |
 * | `ERR_HEARSAY_RESPONDER` | a responder threw; its message is this error's (only inside an answer) |
 * | `ERR_HEARSAY_TIMEOUT` | what was waited for did not happen in time |
 * | `ERR_HEARSAY_STOPPED` | the cluster has left or was stopped |
 * | `ERR_HEARSAY_TIME` | a time given to a failure detector is NaN, infinite or goes backwards |
 * | `ERR_HEARSAY_SEED` | a seed does not resolve or does not answer (only inside `seedFailed`) |
 * | `ERR_HEARSAY_SYSTEM` | the operating system refused a thread, a socket or entropy |
 * | `ERR_HEARSAY_INTERNAL` | a fault of hearsay itself |
 */
export type HearsayErrorCode = (typeof CODES)[number]

const KNOWN: ReadonlySet<string> = new Set(CODES)

/** The one error class of hearsay. Tell errors apart by `code`, never by the message. */
export class HearsayError extends Error {
  override readonly name: string = 'HearsayError'
  /** A stable code, see {@link HearsayErrorCode}. */
  readonly code: HearsayErrorCode

  constructor(code: HearsayErrorCode, message: string, options?: { cause?: unknown }) {
    super(message, options)
    this.code = code
  }
}

/** The error of an aborted wait or loop: `name` is `AbortError`, `cause` the signal's reason. */
export class AbortError extends Error {
  override readonly name: string = 'AbortError'
  /** As Node's own abort errors. */
  readonly code: string = 'ABORT_ERR'

  constructor(reason?: unknown) {
    super('The operation was aborted', { cause: reason })
  }
}

/** What the addon threw, as a {@link HearsayError}: the addon puts a code of the table into `code`. */
export function fromNative(error: unknown): HearsayError {
  if (error instanceof HearsayError) return error
  const code = error instanceof Error && 'code' in error ? String(error.code) : ''
  const message = error instanceof Error ? error.message : String(error)
  return KNOWN.has(code)
    ? new HearsayError(code as HearsayErrorCode, message)
    : new HearsayError('ERR_HEARSAY_INTERNAL', message, { cause: error })
}

/** Throws an {@link AbortError} if the signal is aborted. */
export function throwIfAborted(signal: AbortSignal | undefined): void {
  if (signal?.aborted) throw new AbortError(signal.reason)
}

/** Waits for `promise`, but no longer than until the signal is aborted; what is under way then goes on unheard. */
export async function untilAborted<T>(promise: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (signal === undefined) return promise
  let abort = (): void => {}
  const aborted = new Promise<never>((_, reject) => {
    abort = () => reject(new AbortError(signal.reason))
    signal.addEventListener('abort', abort, { once: true })
  })
  try {
    return await Promise.race([promise, aborted])
  } finally {
    signal.removeEventListener('abort', abort)
  }
}
