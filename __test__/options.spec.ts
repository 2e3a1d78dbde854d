import test from 'ava'
import { HearsayError, type HearsayErrorCode } from '../ts/errors.js'
import {
  checkClusterOptions,
  checkLiveness,
  checkPhiOptions,
  checkWait,
  isLoopback,
  nativeOptions,
  nearest,
  seedList,
  tags,
} from '../ts/options.js'

type Any = Parameters<typeof checkClusterOptions>[0]

const refused = test.macro((t, options: unknown, code: HearsayErrorCode, message: string | RegExp) => {
  const error = t.throws(() => checkClusterOptions(options as Any), { instanceOf: HearsayError })
  t.is(error?.code, code)
  if (typeof message === 'string') t.is(error?.message, message)
  else t.regex(error?.message ?? '', message)
})

test('nothing given: defaults', (t) => {
  const options = checkClusterOptions(undefined)
  t.regex(options.name, /.+-[0-9a-f]{8}$/)
  t.like(options, {
    cluster: '',
    bind: '127.0.0.1:0',
    seeds: [],
    tags: {},
    keys: [],
    profile: 'lan',
    codec: 'json',
  })
  t.not(checkClusterOptions({}).name, options.name)
})

const O = 'ERR_HEARSAY_OPTION'
const threshold = (threshold: unknown) => ({ failureDetector: { threshold } })
test('number', refused, threshold(-1), O, 'failureDetector.threshold must be > 0, got -1')
test('NaN', refused, threshold(Number.NaN), O, 'failureDetector.threshold must be > 0, got NaN')
test('string for number', refused, threshold('8'), O, "failureDetector.threshold must be > 0, got '8'")
test(
  'range',
  refused,
  { failureDetector: { windowSize: 1 } },
  O,
  'failureDetector.windowSize must be an integer in 2..10000, got 1',
)
test(
  'fraction',
  refused,
  { gossip: { fanout: 1.5 } },
  O,
  'gossip.fanout must be an integer in 1..16, got 1.5',
)
test(
  'seed',
  refused,
  { seeds: ['nowhere'] },
  O,
  "seeds[0] must be 'host:port' with a port of 1..65535, got 'nowhere'",
)
test('seed port', refused, { seeds: ['a:1', 'b:0'] }, O, /^seeds\[1\] must be .* got 'b:0'$/)
test('bind port', refused, { bind: '127.0.0.1:65536' }, O, "bind must be 'host:port', got '127.0.0.1:65536'")
test('advertise port 0', refused, { advertise: 'me:0' }, O, /^advertise must be/)
test('unknown at the top', refused, { seed: [] }, O, 'unknown option seed; did you mean seeds?')
test(
  'unknown below',
  refused,
  { failureDetector: { treshold: 8 } },
  O,
  'unknown option failureDetector.treshold; did you mean failureDetector.threshold?',
)
test(
  'unknown limit',
  refused,
  { limits: { valueBytes: 1 } },
  O,
  'unknown option limits.valueBytes; did you mean limits.valueBytesMax?',
)
test(
  'inherited names are unknown',
  refused,
  { constructor: 1 },
  O,
  /^unknown option constructor; did you mean/,
)
test('not an object', refused, null, O, 'options must be an object, got null')
test('section not an object', refused, { gossip: 'fast' }, O, "gossip must be an object, got 'fast'")
test('empty name', refused, { name: '' }, O, "name must be 1..128 bytes of printable UTF-8, got ''")
test('long name', refused, { name: 'é'.repeat(65) }, O, /^name must be 1..128 bytes/)
test('control character', refused, { name: 'a\nb' }, O, /^name must be/)
test('half a surrogate', refused, { name: '\ud800' }, O, /^name must be/)
test('profile', refused, { profile: 'moon' }, O, "profile must be 'local' or 'lan' or 'wan', got 'moon'")
test(
  'mode unknown',
  refused,
  { gossip: { mode: 'shout' } },
  O,
  "gossip.mode must be 'push-pull' or 'push' or 'pull', got 'shout'",
)
const rumor = (rumor: unknown) => ({ gossip: { rumor } })
const whole = /^gossip\.rumor must be 'adaptive' or \{ feedback, loss, k \}, got /
test('rumor unknown', refused, rumor('cold'), O, whole)
test('rumor in part', refused, rumor({ feedback: true, k: 2 }), O, whole)
test(
  'rumor k',
  refused,
  rumor({ feedback: true, loss: 'coin', k: 0 }),
  O,
  'gossip.rumor.k must be an integer in 1..255, got 0',
)
test(
  'rumor loss',
  refused,
  rumor({ feedback: true, loss: 'dice', k: 1 }),
  O,
  "gossip.rumor.loss must be 'coin' or 'counter', got 'dice'",
)
test(
  'rumor feedback',
  refused,
  rumor({ feedback: 1, loss: 'coin', k: 1 }),
  O,
  'gossip.rumor.feedback must be true or false, got 1',
)
test('rumor field', refused, rumor({ feedbak: true }), O, /did you mean gossip\.rumor\.feedback\?$/)

test('modes and loss of interest reach the addon', (t) => {
  const given = { mode: 'pull', rumor: { feedback: false, loss: 'coin', k: 3 } } as const
  const native = nativeOptions(checkClusterOptions({ gossip: given }))
  t.like(native, { mode: 'pull', rumorFeedback: false, rumorLoss: 'coin', rumorK: 3 })
})

test('storage', refused, { storage: '/tmp/x' }, O, /^storage must be an object/)
test('storage path', refused, { storage: {} }, O, /^storage\.path must be the path of a folder/)
test('storage path type', refused, { storage: { path: 7 } }, O, /^storage\.path must be the path of a folder/)
test('storage field', refused, { storage: { pth: '/tmp/x' } }, O, /did you mean storage\.path/)
test(
  'key length',
  refused,
  { keys: [new Uint8Array(31)] },
  O,
  'keys[0] must be 32 bytes or their base64, got 31 bytes',
)
test('key text', refused, { keys: ['secret'] }, O, 'keys[0] must be 32 bytes or their base64, got a string')
test('no keys', refused, { keys: [] }, O, 'keys must be an array of 1..16 keys, got 0 keys')
test('tags type', refused, { tags: { zone: 1 } }, O, 'tags.zone must be a string of at most 255 bytes, got 1')
test(
  'tags size',
  refused,
  { tags: { a: 'x'.repeat(255), b: 'y'.repeat(255) } },
  'ERR_HEARSAY_TAGS',
  'tags must have at most 512 bytes encoded, got 516',
)
test(
  'settle',
  refused,
  { antiEntropy: { settleMs: 1500 } },
  O,
  'antiEntropy.settleMs must be whole seconds in 1000..60000, got 1500',
)
test(
  'codec',
  refused,
  { codec: 'xml' },
  O,
  "codec must be 'json' or 'bytes' or { encode, decode }, got 'xml'",
)
test('half a codec', refused, { codec: { encode() {} } }, O, /^codec must be/)
test('logger', refused, { logger: { info: 1 } }, O, 'logger.info must be a function, got 1')
test('signal', refused, { signal: {} }, O, 'signal must be an AbortSignal, got {}')

test('a key is never shown', (t) => {
  const key = Buffer.alloc(33, 'K').toString('base64')
  const error = t.throws(() => checkClusterOptions({ keys: [key] }))
  t.false(error?.message.includes(key.slice(0, 8)))
})

test('keys as bytes and as base64 are the same', (t) => {
  const key = Uint8Array.from({ length: 32 }, (_, i) => i * 7)
  const text = Buffer.from(key).toString('base64')
  t.deepEqual(checkClusterOptions({ keys: [key] }).keys, checkClusterOptions({ keys: [text] }).keys)
})

test('what is given reaches the addon, what is not stays out', (t) => {
  const native = nativeOptions(
    checkClusterOptions({
      name: 'a',
      tags: { zone: 'x', role: 'y' },
      gossip: { intervalMs: 100, mode: 'push-pull', rumor: 'adaptive' },
      failureDetector: { threshold: 9, patienceMs: 1000, model: 'exponential' },
      antiEntropy: { settleMs: 1000 },
      bandwidth: { bytesPerSecondMax: 10_000 },
      limits: { valueBytesMax: 100 },
    }),
  )
  t.deepEqual(native, {
    name: 'a',
    cluster: '',
    bind: '127.0.0.1:0',
    profile: 'lan',
    seeds: [],
    keys: [],
    tags: ['zone', 'x', 'role', 'y'],
    gossipIntervalMs: 100,
    mode: 'push-pull',
    threshold: 9,
    patienceMs: 1000,
    model: 'exponential',
    settleMs: 1000,
    bytesPerSecondMax: 10_000,
    valueBytesMax: 100,
    joinTimeoutMs: 1000,
  })
})

test('undefined is as not given', (t) => {
  t.deepEqual(
    checkClusterOptions({ name: 'a', cluster: undefined, gossip: undefined }),
    checkClusterOptions({ name: 'a' }),
  )
})

test('addresses of both families', (t) => {
  t.deepEqual(seedList(['[::1]:7946', '10.0.0.1:7946', 'a-b.c_d:1'], 'seeds'), [
    '[::1]:7946',
    '10.0.0.1:7946',
    'a-b.c_d:1',
  ])
  for (const bad of ['::1:7946', ':1', 'a:', 'a:b', 'a:1:2', '[::1]', 'a b:1', 7946]) {
    t.throws(() => seedList([bad], 'seeds'), { message: /^seeds\[0\]/ })
  }
  t.true(isLoopback('127.0.0.1:0') && isLoopback('[::1]:7946') && isLoopback('localhost:1'))
  t.false(isLoopback('0.0.0.0:0') || isLoopback('10.127.0.1:1'))
})

test('tags are copied', (t) => {
  const given = { a: '1' }
  const checked = tags(given, 'tags')
  given.a = '2'
  t.is(checked.a, '1')
})

test('the nearest name', (t) => {
  t.is(nearest('fanuot', ['mode', 'fanout', 'rumor']), 'fanout')
  t.is(nearest('JOINTIMEOUT', ['joinTimeoutMs', 'profile']), 'joinTimeoutMs')
})

test('options of a detector', (t) => {
  t.deepEqual(checkPhiOptions({ windowSize: 10 }), { windowSize: 10 })
  t.throws(() => checkPhiOptions({ windowSize: 0 }), {
    message: 'windowSize must be an integer in 1..65536, got 0',
  })
  t.throws(() => checkPhiOptions({ minStdDev: 1 }), {
    message: 'unknown option minStdDev; did you mean minStdDevMs?',
  })
})

test('options of a wait', (t) => {
  t.throws(() => checkWait({ timeoutMs: -1 }, 'waitFor'), {
    message: /^waitFor\.timeoutMs must be an integer in 0\.\./,
  })
  t.throws(() => checkWait({ timeout: 1 }, 'leave'), {
    message: 'unknown option leave.timeout; did you mean leave.timeoutMs?',
  })
})

test('filter of members', (t) => {
  t.deepEqual([...checkLiveness(undefined)], ['alive', 'suspect'])
  t.deepEqual([...checkLiveness({ liveness: 'all' })], ['alive', 'suspect', 'dead', 'left'])
  t.deepEqual([...checkLiveness({ liveness: ['dead', 'left'] })], ['dead', 'left'])
  t.throws(() => checkLiveness({ liveness: 'faulty' }), { message: /^members\.liveness must be 'all' or/ })
})
