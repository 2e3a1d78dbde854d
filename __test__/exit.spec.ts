import test from 'ava'
import { child } from './child.js'

const ends = test.macro(async (t, script: string, stdout: string) => {
  const ended = await child(script)
  t.is(ended.stderr, '')
  t.is(ended.code, 0)
  t.is(ended.stdout, stdout)
})

test(
  'after stop',
  ends,
  `const c = await Cluster.start(); await c.stop(); console.log('stopped')`,
  'stopped\n',
)
test('after leave', ends, `const c = await Cluster.start(); await c.leave(); console.log('left')`, 'left\n')
test('unref lets go', ends, `const c = await Cluster.start(); c.unref(); console.log('up')`, 'up\n')
test('process.exit while running', ends, `await Cluster.start(); console.log('up'); process.exit(0)`, 'up\n')
test(
  'process.exit while starting',
  ends,
  `Cluster.start({ seeds: ['127.0.0.1:9'] }); setTimeout(() => process.exit(0), 20)`,
  '',
)
test(
  'a start that fails',
  ends,
  `await Cluster.start({ bind: '192.0.2.1:0' }).catch((e) => console.log(e.code))`,
  'ERR_HEARSAY_BIND\n',
)
test(
  'an aborted start',
  ends,
  `const s = new AbortController(); const p = Cluster.start({ seeds: ['127.0.0.1:9'], signal: s.signal }); s.abort(); await p.catch((e) => console.log(e.name))`,
  'AbortError\n',
)
test(
  'twenty members stopped at once',
  ends,
  `const all = await Promise.all(Array.from({ length: 20 }, () => Cluster.start())); await Promise.all(all.map((c) => c.stop())); console.log('stopped')`,
  'stopped\n',
)

test('a started cluster holds the process', async (t) => {
  const ended = await child(`await Cluster.start(); console.log('up')`, { aliveMs: 2_000 })
  t.is(ended.signal, 'SIGKILL')
  t.is(ended.stdout, 'up\n')
})

test('what a listener throws comes up after the rest of the batch', async (t) => {
  const ended = await child(`
    const a = await Cluster.start({ name: 'a' })
    const b = await Cluster.start({ name: 'b', seeds: [a.self.address] })
    const c = await Cluster.start({ name: 'c', seeds: [a.self.address] })
    await c.waitFor({ members: 3 })
    const seen = []
    process.on('uncaughtException', (error) => {
      seen.push(error.message)
      if (seen.filter((text) => text.startsWith('boom')).length < 2) return
      console.log(seen.join())
      console.log(c.size)
      Promise.all([a, b, c].map((x) => x.stop()))
    })
    c.on('memberJoined', ({ name }) => { if (name !== 'c') { seen.push(name); throw new Error('boom ' + name) } })
  `)
  t.is(ended.code, 0, ended.stderr)
  const [seen = '', size] = ended.stdout.trim().split('\n')
  t.deepEqual(seen.split(',').sort(), ['a', 'b', 'boom a', 'boom b'])
  t.is(size, '3', 'the cluster stays whole')
})

test('an error nobody listens to is logged, not thrown', async (t) => {
  const ended = await child(`
    const logger = { error: (_, message) => console.log('logged:', message) }
    const codec = { encode: (v) => Buffer.from(v), decode: () => { throw new Error('broken') } }
    const c = await Cluster.start({ codec, logger })
    await new Promise(setImmediate)
    const changes = c.state.watch()
    c.state.set('k', 'v')
    changes.next()
    setTimeout(() => c.stop(), 300)
  `)
  t.is(ended.stderr, '')
  t.is(ended.stdout, "logged: the value of 'k' cannot be decoded: broken\n")
})

test('starting and stopping does not pile up memory', async (t) => {
  const ended = await child(
    `
    const turn = async (n) => { for (let i = 0; i < n; i++) { const c = await Cluster.start(); c.state.set('k', 'x'.repeat(10000)); await c.stop() } }
    // Not V8's own heap, which grows as it likes under the loader of TypeScript; the soak watches that one.
    const held = () => { gc(); const { rss, heapTotal } = process.memoryUsage(); return rss - heapTotal }
    await turn(100); const before = held()
    await turn(400); const after = held()
    console.log(Math.round((after - before) / 400))
  `,
    { withinMs: 90_000, nodeArguments: ['--expose-gc'] },
  )
  t.is(ended.code, 0, ended.stderr)
  // A leaked member would hold its buffers and its store: over 100 kB each.
  t.log(ended.stdout.trim())
  t.true(Number(ended.stdout) < 50_000, `${ended.stdout.trim()} bytes per member`)
})
