import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import anyTest, { type TestFn } from 'ava'
import { Cluster, type ClusterOptions, HearsayError } from '../ts/index.js'
import { child } from './child.js'

const test = anyTest as TestFn<{ folder: string; clusters: Cluster[] }>

test.beforeEach(async (t) => {
  t.context = { folder: await mkdtemp(join(tmpdir(), 'hearsay-test-')), clusters: [] }
})

test.afterEach.always(async (t) => {
  await Promise.all(t.context.clusters.map((cluster) => cluster.stop()))
  await rm(t.context.folder, { recursive: true, force: true })
})

type Context = { context: { folder: string; clusters: Cluster[] } }

async function start(t: Context, name: string, options: ClusterOptions = {}): Promise<Cluster> {
  const storage = { path: join(t.context.folder, name) }
  const cluster = await Cluster.start({ name, storage, ...options })
  t.context.clusters.push(cluster)
  return cluster
}

async function until(ready: () => boolean, withinMs = 30_000): Promise<boolean> {
  const end = Date.now() + withinMs
  while (!ready()) {
    if (Date.now() > end) return false
    await new Promise((resolve) => setTimeout(resolve, 20))
  }
  return true
}

/** A port that nobody has now: members that are to find each other after a restart keep theirs. */
async function freePort(): Promise<number> {
  const server = createServer()
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const address = server.address()
  await new Promise((resolve) => server.close(resolve))
  return typeof address === 'object' && address !== null ? address.port : 0
}

function refused(path: string): { instanceOf: typeof HearsayError; code: string; message: RegExp } {
  const escaped = path.replaceAll(/[.*+?^${}()|[\]\\]/g, '\\$&')
  return { instanceOf: HearsayError, code: 'ERR_HEARSAY_STORAGE', message: new RegExp(escaped) }
}

test('one member comes back with its state and a higher generation', async (t) => {
  const first = await start(t, 'a')
  first.state.set('kept', { n: 1 })
  first.state.set('gone', 'x')
  first.state.delete('gone')
  first.state.set('short', 'x', { ttlMs: 50 })
  await first.state.flush()
  t.true(first.metrics().storage.batches > 0)
  const { generation, id } = first.self
  const version = first.state.set('kept', { n: 2 }).version
  // A stop saves what a flush was not asked for.
  await first.stop()
  await new Promise((resolve) => setTimeout(resolve, 60))
  const second = await start(t, 'a')
  t.deepEqual(second.state.entries(), [['kept', { n: 2 }]])
  t.true(second.self.generation > generation)
  t.not(second.self.id, id)
  t.true(second.state.set('kept', { n: 3 }).version > version)
  await second.leave()
  const third = await start(t, 'a')
  t.deepEqual(third.state.get('kept'), { n: 3 })
  t.true(third.self.generation > second.self.generation)
})

test('a whole cluster restarted together comes back with its state, without seeds', async (t) => {
  const names = ['a', 'b', 'c', 'd']
  const binds = await Promise.all(names.map(async () => `127.0.0.1:${await freePort()}`))
  const each = (make: (name: string, i: number) => ClusterOptions): Promise<Cluster[]> =>
    Promise.all(names.map((name, i) => start(t, name, { bind: binds[i], ...make(name, i) })))
  const first = await each((_, i) => (i === 0 ? {} : { seeds: [binds[0] as string] }))
  await Promise.all(first.map((cluster) => cluster.waitFor({ members: 4 })))
  for (const [i, cluster] of first.entries()) cluster.state.set(`of/${i}`, 'x'.repeat(i * 1_000))
  t.true(await until(() => first.every((cluster) => cluster.state.size === 4)))
  // Members are saved within two seconds of their coming.
  await new Promise((resolve) => setTimeout(resolve, 2_500))
  await Promise.all(first.map((cluster) => cluster.state.flush()))
  await Promise.all(first.map((cluster) => cluster.stop()))
  const second = await each(() => ({}))
  await Promise.all(second.map((cluster) => cluster.waitFor({ members: 4 })))
  t.true(await until(() => second.every((cluster) => cluster.root() === second[0]?.root())))
  for (const cluster of second) {
    t.deepEqual(cluster.state.keys(), ['of/0', 'of/1', 'of/2', 'of/3'])
    t.is((cluster.state.get('of/3') as string).length, 3_000)
  }
})

test('what a member missed while it was away it gets, deletes included', async (t) => {
  const a = await start(t, 'a')
  const b = await start(t, 'b', { seeds: [a.self.address] })
  for (let i = 0; i < 50; i++) a.state.set(`k${i}`, i)
  t.true(await until(() => b.state.size === 50))
  await b.state.flush()
  await b.leave()
  a.state.delete('k7')
  a.state.set('k8', 'changed')
  const again = await start(t, 'b', { seeds: [a.self.address] })
  t.true(await until(() => again.state.get('k8') === 'changed' && !again.state.has('k7')))
  t.is(again.state.size, 49)
  t.true(await until(() => again.root() === a.root()))
  t.false(a.state.has('k7'), 'the delete stays')
})

test('a path in use, another cluster, damage: refused with the cause, and nothing is lost', async (t) => {
  const a = await start(t, 'a')
  a.state.set('k', 'v')
  await a.state.flush()
  const path = join(t.context.folder, 'a')
  await t.throwsAsync(start(t, 'b', { storage: { path } }), refused(path))
  await t.throwsAsync(start(t, 'b', { storage: { path } }), { message: /in use/ })
  t.is(a.state.get('k'), 'v')
  const other = await child(
    `await Cluster.start({ storage: { path: ${JSON.stringify(path)} } }).catch((e) => console.log(e.code, e.message))`,
  )
  t.regex(other.stdout, /^ERR_HEARSAY_STORAGE .*in use by another member or process/)
  await a.stop()
  await t.throwsAsync(start(t, 'a', { cluster: 'other' }), { message: /belongs to cluster '', not 'other'/ })
  const file = join(path, 'hearsay.log')
  const whole = await readFile(file)
  await writeFile(file, 'not a store')
  await t.throwsAsync(start(t, 'a'), refused(file))
  t.is(String(await readFile(file)), 'not a store')
  await writeFile(file, whole.subarray(0, whole.length / 2))
  await t.throwsAsync(start(t, 'a'), refused(file))
  await writeFile(file, whole)
  const again = await start(t, 'a')
  t.is(again.state.get('k'), 'v')
})

test('a path that cannot be a folder is refused', async (t) => {
  const file = join(t.context.folder, 'file')
  await writeFile(file, '')
  await t.throwsAsync(start(t, 'a', { storage: { path: join(file, 'below') } }), refused(file))
})

test('flush: without storage, aborted, stopped', async (t) => {
  const plain = await Cluster.start()
  t.context.clusters.push(plain)
  await t.throwsAsync(plain.state.flush(), { code: 'ERR_HEARSAY_STORAGE', message: /without it/ })
  const a = await start(t, 'a')
  await t.throwsAsync(a.state.flush({ signal: AbortSignal.abort() }), { name: 'AbortError' })
  await t.throwsAsync(a.state.flush({ timeoutMs: -1 }), { code: 'ERR_HEARSAY_OPTION' })
  await a.state.flush({ timeoutMs: 30_000, signal: new AbortController().signal })
  await a.stop()
  await t.throwsAsync(a.state.flush(), { code: 'ERR_HEARSAY_STOPPED' })
})

test('kill -9 loses nothing that a flush covered, and the generation rises', async (t) => {
  t.timeout(240_000)
  const path = join(t.context.folder, 'killed')
  const script = `
    const c = await Cluster.start({ name: 'killed', storage: { path: ${JSON.stringify(path)} } })
    const lost = []
    const covered = JSON.parse(process.argv.at(-1))
    for (const [key, value] of covered) if (c.state.get(key) !== value) lost.push(key)
    console.log(JSON.stringify({ generation: c.self.generation, size: c.state.size, lost }))
    for (let n = 0; ; n++) {
      const writes = []
      for (let i = 0; i < 20; i++) {
        const write = ['k' + ((n * 7 + i * 13) % 200), c.self.generation + '.' + n + '.' + i]
        c.state.set(...write)
        writes.push(write)
      }
      await c.state.flush()
      console.log(JSON.stringify({ writes }))
    }
  `
  const covered = new Map<string, string>()
  let generation = 0
  let flushes = 0
  for (let round = 0; round < 20; round++) {
    const ended = await child(script, {
      aliveMs: 20 + round * 17,
      arguments: [JSON.stringify([...covered])],
    })
    t.is(ended.signal, 'SIGKILL', ended.stderr)
    const lines = ended.stdout
      .split('\n')
      .slice(0, -1)
      .map((line) => JSON.parse(line))
    const [begun, ...flushed] = lines
    t.deepEqual(begun.lost, [], `round ${round}`)
    t.true(begun.generation > generation && begun.size >= covered.size)
    generation = begun.generation
    flushes += flushed.length
    // What came after the last flush that was heard of may be there too: those keys say nothing in the next round.
    const uncertain = new Set<string>()
    for (let i = 0; i < 20; i++) uncertain.add(`k${(flushed.length * 7 + i * 13) % 200}`)
    for (const { writes } of flushed) for (const [key, value] of writes) covered.set(key, value)
    for (let i = 0; i < 20; i++) uncertain.add(`k${((flushed.length + 1) * 7 + i * 13) % 200}`)
    for (const key of uncertain) covered.delete(key)
  }
  t.true(flushes > 20, `${flushes} flushes`)
})

test('a disk that is full: one error, the member lives on, and nothing saved is lost', async (t) => {
  if (process.platform !== 'linux') {
    t.pass('the test limits files by ulimit')
    return
  }
  const path = join(t.context.folder, 'full')
  const script = `
    const c = await Cluster.start({ name: 'full', storage: { path: ${JSON.stringify(path)} } })
    const errors = []
    c.on('error', (error) => errors.push(error.code))
    let saved = -1
    let code
    for (let n = 0; n < 400 && code === undefined; n++) {
      c.state.set('k' + n, String(n).padEnd(20_000, 'x'))
      try { await c.state.flush({ timeoutMs: 30_000 }); saved = n } catch (e) { code = e.code }
    }
    c.state.set('after', 1)
    const { healthy } = c.health()
    const held = c.state.size
    await c.stop()
    console.log(JSON.stringify({ code, errors, saved, healthy, held }))
  `
  const ended = await child(script, { fileBlocksMax: 4_096 })
  t.is(ended.code, 0, ended.stderr)
  const { code, errors, saved, healthy, held } = JSON.parse(ended.stdout)
  t.is(code, 'ERR_HEARSAY_STORAGE')
  t.deepEqual(errors, ['ERR_HEARSAY_STORAGE'])
  t.true(saved > 5, `${saved}`)
  t.false(healthy)
  t.is(held, saved + 3)
  const again = await start(t, 'full')
  for (let n = 0; n <= saved; n++) t.is((again.state.get(`k${n}`) as string | undefined)?.length, 20_000)
})

test('a folder that may not be written is refused', async (t) => {
  if (process.getuid?.() !== 0 || process.platform !== 'linux') {
    const { chmod, mkdir } = await import('node:fs/promises')
    const path = join(t.context.folder, 'locked')
    await mkdir(path)
    await chmod(path, 0o500)
    await t.throwsAsync(start(t, 'a', { storage: { path } }), refused(path))
    return
  }
  // Permissions do not hold root back: a folder of the system does.
  await t.throwsAsync(start(t, 'a', { storage: { path: '/proc/hearsay' } }), refused('/proc/hearsay'))
})
