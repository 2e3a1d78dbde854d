import { execFile } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import test from 'ava'
import { child } from './child.js'

const ENDS = ['stop()', 'leave()', '[Symbol.asyncDispose]()'] as const

/** Every order of one, two and three of them. */
const orders: string[][] = ENDS.flatMap((a) => [
  [a],
  ...ENDS.filter((b) => b !== a).flatMap((b) => [
    [a, b],
    ...ENDS.filter((c) => c !== a && c !== b).map((c) => [a, b, c]),
  ]),
])

const call = (end: string): string => (end.startsWith('[') ? `c${end}` : `c.${end}`)

for (const together of [false, true]) {
  test(`exits with 0 in every order of stop, leave and dispose, ${together ? 'at once' : 'one by one'}`, async (t) => {
    t.is(orders.length, 15)
    const scripts = orders.map((order) => {
      const calls = order.map(call)
      const body = together
        ? `await Promise.all([${calls.join(', ')}])`
        : calls.map((text) => `await ${text}`).join('; ')
      return `const c = await Cluster.start({ seeds: [other.self.address] }); c.state.set('k', 1); ${body}`
    })
    // One process for all: any order that kept something would hold it.
    const all = await child(`
      const other = await Cluster.start()
      ${scripts.map((script) => `{ ${script} }`).join('\n')}
      await other.stop()
      console.log('ended')
    `)
    t.is(all.stderr, '')
    t.is(all.code, 0)
    t.is(all.stdout, 'ended\n')
  })
}

for (const [first = '', second = ''] of orders.filter((order) => order.length === 2)) {
  test(`exits with 0: ${first} alone in its process, ${second} not awaited`, async (t) => {
    const ended = await child(
      `const c = await Cluster.start(); ${call(first)}; ${call(second)}; console.log('asked')`,
    )
    t.is(ended.stderr, '')
    t.is(ended.code, 0)
    t.is(ended.stdout, 'asked\n')
  })
}

test('an unref lets go whatever waits', async (t) => {
  const ended = await child(`
    const c = await Cluster.start({ seeds: ['127.0.0.1:9'] })
    c.unref()
    c.on('memberJoined', () => {})
    c.state.watch().next()
    c.events().next()
    c.query('topic', 1, { timeoutMs: 60_000 }).next()
    c.respond('other', () => 1)
    console.log('up')
  `)
  t.is(ended.stderr, '')
  t.is(ended.code, 0)
  t.is(ended.stdout, 'up\n')
})

test('what waits when the cluster stops rejects with ERR_HEARSAY_STOPPED, and iterators finish', async (t) => {
  const ended = await child(`
    const c = await Cluster.start({ name: 'a' })
    const d = await Cluster.start({ name: 'b', seeds: [c.self.address] })
    await c.waitFor({ members: 2 })
    d.respond('never', () => new Promise(() => {}))
    c.state.set('k', 1)
    const code = (promise) => promise.then(() => 'resolved', (error) => error.code)
    const waiting = [
      code(c.waitFor({ members: 3, timeoutMs: 60_000 })),
      code(c.state.spread('k', { members: 5, timeoutMs: 60_000 })),
      code(c.query('never', 1, { timeoutMs: 60_000 }).next().then(({ done }) => { throw { code: done ? 'done' : 'answer' } })),
      code(c.state.watch().next().then(({ done }) => { throw { code: done ? 'done' : 'change' } })),
      code(c.events().next().then(({ done }) => { throw { code: done ? 'done' : 'event' } })),
    ]
    await c.stop()
    console.log((await Promise.all(waiting)).join())
    await d.stop()
  `)
  t.is(ended.stderr, '')
  t.is(ended.code, 0)
  const [waitFor, spread, , watch] = ended.stdout.trim().split(',')
  t.is(waitFor, 'ERR_HEARSAY_STOPPED')
  t.is(spread, 'ERR_HEARSAY_STOPPED')
  t.is(watch, 'done')
})

const door = JSON.stringify(new URL('../dist/index.js', import.meta.url).href)
const workers = (rounds: number, body: string, end: string): string => `
  import { Worker } from 'node:worker_threads'
  const source = ${JSON.stringify(`const { parentPort } = require('node:worker_threads')
    import(${door}).then(async ({ Cluster, simulate }) => { ${body} })`)}
  for (let round = 0; round < ${rounds}; round++) {
    const all = Array.from({ length: 20 }, () => new Worker(source, { eval: true, execArgv: [] }))
    const exits = all.map((w) => new Promise((done) => w.once('exit', done)))
    await Promise.all(all.map((w) => new Promise((resolve, reject) => { w.once('message', resolve); w.once('error', reject) })))
    ${end}
  }
  console.log('whole')
`

test('twenty workers each start and stop a member', async (t) => {
  const body = `const c = await Cluster.start(); c.state.set('k', 1); await c.stop(); parentPort.postMessage('stopped')`
  const end = `await Promise.all(exits)`
  const ended = await child(workers(1, body, end))
  t.is(ended.stderr, '')
  t.is(ended.code, 0)
  t.is(ended.stdout, 'whole\n')
})

test('twenty workers are terminated while every kind of call is pending', async (t) => {
  const body = `
    const c = await Cluster.start()
    const d = await Cluster.start({ name: 'd', seeds: [c.self.address] })
    d.respond('slow', () => new Promise(() => {}))
    const quiet = (promise) => promise.catch(() => {})
    quiet(c.waitFor({ members: 9, timeoutMs: 60_000 }))
    c.state.set('k', 'x'.repeat(100_000))
    quiet(c.state.spread('k', { members: 5, timeoutMs: 60_000 }))
    quiet(c.broadcast('t', 1).reached({ timeoutMs: 60_000 }))
    quiet(c.send('d', 't', 'x'.repeat(100_000)))
    quiet(c.query('slow', 1, { timeoutMs: 60_000 }).next())
    quiet(c.state.watch().next())
    quiet(c.events().next())
    quiet(c.join(['127.0.0.1:9']))
    quiet(c.updateTags({ a: 'b' }))
    quiet(Cluster.start({ seeds: ['127.0.0.1:9'], joinTimeoutMs: 5000 }))
    quiet(d.leave({ timeoutMs: 5000 }))
    quiet(simulate({ members: 100, scenario: { kind: 'rumor' } }))
    parentPort.postMessage('pending')`
  const end = `await Promise.all(all.map((w, i) => new Promise((done) => setTimeout(() => done(w.terminate()), (i * 7 * round) % 50))))`
  const ended = await child(workers(2, body, end), { withinMs: 110_000 })
  t.is(ended.stderr, '')
  t.is(ended.code, 0)
  t.is(ended.stdout, 'whole\n')
})

test('memory, descriptors and threads stay flat', async (t) => {
  const script = fileURLToPath(new URL('../scripts/soak.mjs', import.meta.url))
  const line = ['--expose-gc', script, '--events', '60000', '--cycles', '300']
  const { stdout } = await promisify(execFile)(process.execPath, line, { timeout: 110_000 }).catch(
    (failed) => failed,
  )
  const { ok, phases } = JSON.parse(stdout || '{}')
  for (const phase of phases ?? []) t.log(JSON.stringify(phase))
  t.true(ok)
})
