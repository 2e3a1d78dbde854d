import test from 'ava'
import { child } from './child.js'

const worker = (body: string) => `
  import { Worker } from 'node:worker_threads'
  const source = ${JSON.stringify(`
    const { parentPort } = require('node:worker_threads')
    import(%DOOR%).then(async ({ Cluster }) => { %BODY% })
  `)}.replace('%DOOR%', JSON.stringify(${JSON.stringify(new URL('../dist/index.js', import.meta.url).href)})).replace('%BODY%', ${JSON.stringify(body)})
  const spawn = () => new Worker(source, { eval: true, execArgv: [] })
  const message = (w) => new Promise((resolve, reject) => { w.once('message', resolve); w.once('error', reject) })
`

test('members in workers, half of them terminated while they run', async (t) => {
  const ended = await child(
    `
    ${worker(`
      const c = await Cluster.start()
      c.on('memberJoined', () => {})
      parentPort.once('message', () => c.stop())
      for (let i = 0; i < 100; i++) c.state.set('k' + i, i)
      parentPort.postMessage(c.self.address)
    `)}
    const main = await Cluster.start()
    for (let round = 0; round < 3; round++) {
      const workers = Array.from({ length: 6 }, spawn)
      await Promise.all(workers.map(message))
      await Promise.all(workers.map((w, i) => i % 2 ? w.terminate() : new Promise((done) => { w.once('exit', done); w.postMessage('stop') })))
    }
    main.state.set('alive', true)
    console.log(main.state.get('alive'))
    await main.stop()
  `,
  )
  t.is(ended.stderr, '')
  t.is(ended.code, 0)
  t.is(ended.stdout, 'true\n')
})

test('a worker terminated while its member starts or waits', async (t) => {
  const ended = await child(
    `
    ${worker(`
      parentPort.postMessage('starting')
      const c = await Cluster.start({ seeds: ['127.0.0.1:9'], joinTimeoutMs: 5000 })
      await c.waitFor({ members: 2 })
    `)}
    for (let round = 0; round < 5; round++) {
      const workers = Array.from({ length: 4 }, spawn)
      await Promise.all(workers.map(message))
      await new Promise((resolve) => setTimeout(resolve, round * 10))
      await Promise.all(workers.map((w) => w.terminate()))
    }
    console.log('whole')
  `,
  )
  t.is(ended.stderr, '')
  t.is(ended.code, 0)
  t.is(ended.stdout, 'whole\n')
})
