import { readFileSync } from 'node:fs'
import test from 'ava'
import { AbortError, fromNative, HearsayError, throwIfAborted } from '../ts/errors.js'

test('a code and a cause', (t) => {
  const cause = new Error('below')
  const error = new HearsayError('ERR_HEARSAY_BIND', 'no', { cause })
  t.true(error instanceof Error)
  t.like(error, { name: 'HearsayError', code: 'ERR_HEARSAY_BIND', message: 'no', cause })
})

test('what the addon throws keeps its code, anything else is internal', (t) => {
  const known = fromNative(Object.assign(new Error('m'), { code: 'ERR_HEARSAY_KEY' }))
  t.like(known, { code: 'ERR_HEARSAY_KEY', message: 'm' })
  const odd = new TypeError('x')
  t.like(fromNative(odd), { code: 'ERR_HEARSAY_INTERNAL', message: 'x', cause: odd })
  t.is(fromNative('text').message, 'text')
  t.is(fromNative(known), known)
})

test('an aborted signal', (t) => {
  throwIfAborted(undefined)
  throwIfAborted(new AbortController().signal)
  const error = t.throws(() => throwIfAborted(AbortSignal.abort('why')), { instanceOf: AbortError })
  t.like(error, { name: 'AbortError', code: 'ABORT_ERR', cause: 'why' })
})

test('every code is in the table, and every code of the runtime is known', (t) => {
  const source = readFileSync(new URL('../ts/errors.ts', import.meta.url), 'utf8')
  const listed = [...source.matchAll(/^ {2}'(ERR_HEARSAY_\w+)',$/gm)].map((found) => found[1])
  const rows = [...source.matchAll(/^ \* \| `(ERR_HEARSAY_\w+)` \|/gm)].map((found) => found[1])
  t.deepEqual(rows, listed)
  t.true(listed.length > 15)
  const runtime = readFileSync(new URL('../crates/runtime/src/error.rs', import.meta.url), 'utf8')
  for (const [code] of runtime.matchAll(/ERR_HEARSAY_[A-Z_]+/g)) t.true(listed.includes(code), code)
})
