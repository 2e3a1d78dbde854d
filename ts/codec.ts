import { HearsayError } from './errors.js'
import { show } from './options.js'
import type { Codec } from './types.js'

/** Depth-first search for what JSON would silently drop. The value holds no cycle: it was encoded before. */
function lost(value: unknown): string | undefined {
  if (value === null) return undefined
  if (typeof value !== 'object') {
    return value === undefined || typeof value === 'function' || typeof value === 'symbol'
      ? typeof value
      : undefined
  }
  if ('toJSON' in value && typeof value.toJSON === 'function') return undefined
  for (const field of Object.values(value)) {
    const found = lost(field)
    if (found !== undefined) return found
  }
  return undefined
}

const textOf = (cause: unknown): string => (cause instanceof Error ? cause.message : String(cause))

function refused(what: string, verb: 'encoded' | 'decoded', cause: unknown): HearsayError {
  return new HearsayError('ERR_HEARSAY_CODEC', `${what} cannot be ${verb}: ${textOf(cause)}`, { cause })
}

function encodeJson(what: string, value: unknown): string {
  let text: string | undefined
  let cause: unknown
  try {
    text = JSON.stringify(value)
  } catch (error) {
    cause = error
  }
  const bad = text === undefined && cause !== undefined ? undefined : lost(value)
  if (text !== undefined && bad === undefined) return text
  throw refused(what, 'encoded', bad === undefined ? cause : new Error(`JSON has no ${bad}`))
}

/** Encodes a value or payload; `what` names it in an error. Throws `ERR_HEARSAY_CODEC`. */
export function encode(codec: Codec, what: string, value: unknown): string | Uint8Array {
  if (codec === 'json') return encodeJson(what, value)
  let bytes: unknown = value
  if (codec !== 'bytes') {
    try {
      bytes = codec.encode(value)
    } catch (cause) {
      throw refused(what, 'encoded', cause)
    }
  }
  if (bytes instanceof Uint8Array) return bytes
  throw new HearsayError('ERR_HEARSAY_CODEC', `${what} must be a Uint8Array, got ${show(bytes)}`)
}

/** As {@link encode}, in bytes. */
export function encodeBytes(codec: Codec, what: string, value: unknown): Uint8Array {
  const encoded = encode(codec, what, value)
  return typeof encoded === 'string' ? Buffer.from(encoded) : encoded
}

/** Decodes what {@link encode} gave. Throws `ERR_HEARSAY_CODEC`. */
export function decode(codec: Codec, what: string, encoded: string | Buffer): unknown {
  try {
    if (codec === 'json') return JSON.parse(typeof encoded === 'string' ? encoded : encoded.toString('utf8'))
    const bytes = typeof encoded === 'string' ? Buffer.from(encoded) : encoded
    const plain = new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.byteLength)
    return codec === 'bytes' ? plain : codec.decode(plain)
  } catch (cause) {
    throw refused(what, 'decoded', cause)
  }
}
