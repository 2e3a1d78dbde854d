// `npm run netns [-- --members 5,20] [--long] [--short] [--profile lan]`: processes in network namespaces that this run makes and removes.
// One JSON object per step and line; exit code 1 if a step fails. Needs root, iproute2 and nftables; where namespaces cannot be made
// it says why and that all is skipped, and ends with 0. `--probe` only looks whether they can: if not, it ends with 2.
import { parseArgs } from 'node:util'
import { obstacle } from './netns/net.mjs'
import * as steps from './netns/steps.mjs'

const { values } = parseArgs({
  options: {
    members: { type: 'string', default: '5,20' },
    long: { type: 'boolean', default: false },
    short: { type: 'boolean', default: false },
    built: { type: 'boolean', default: false },
    probe: { type: 'boolean', default: false },
    profile: { type: 'string' },
  },
})

const why = obstacle()
if (why !== undefined) {
  console.log(JSON.stringify({ step: 'namespaces', skipped: why }))
  process.exit(values.probe ? 2 : 0)
}
if (values.probe) process.exit(0)
if (!values.short && !values.built) {
  const { setup } = await import('./setup.mjs')
  await setup()
}

/**
 * Slowest views and roots after a heal, ms. From ten members on those of section 8 of the protocol; with fewer, none of them may
 * knock at the other side in the first round of contacts (5 s; five members: one heal in twenty), so it is two rounds and a second.
 */
const bounds = (count) => (count < 10 ? [11_000, 13_000] : [6_000, 8_000])

const plan = values.short
  ? [
      ['join', (c) => steps.join(c)],
      ['split', (c) => steps.split(c, { ms: 6_000, keys: 50 })],
      ['one-way cut', (c) => steps.split(c, { ms: 1_000, oneWay: true, keys: 5 })],
      ['loss 20 %', (c) => steps.loss(c, { share: 0.2, ms: 2_000 })],
      ['kill, leave', (c) => steps.ends(c, ['kill', 'leave'])],
      ['stopped for 2 s', (c) => steps.suspend(c, { ms: 2_000 })],
      ['same name elsewhere', (c) => steps.elsewhere(c)],
    ]
  : [
      ['join', (c) => steps.join(c, { restMs: 15_000 })],
      ['split 60 s', (c) => steps.split(c, { ms: 60_000, buried: true, account: true })],
      ['split 10 s', (c) => steps.split(c, { ms: 10_000 })],
      ['one-way cut 20 s', (c) => steps.split(c, { ms: 20_000, oneWay: true })],
      ['loss 20 %', (c) => steps.loss(c, { share: 0.2, ms: 30_000 })],
      ['leave, kill', (c) => steps.ends(c, ['leave', 'kill'])],
      ['kill, leave', (c) => steps.ends(c, ['kill', 'leave'])],
      ['term, stop', (c) => steps.ends(c, ['term', 'stop'])],
      ['stop, term, kill', (c) => steps.ends(c, ['stop', 'term', 'kill'])],
      ['stopped for 2 s', (c) => steps.suspend(c, { ms: 2_000 })],
      ['stopped for 10 s', (c) => steps.suspend(c, { ms: 10_000, mayDie: true })],
      ...(values.long ? [['stopped for 60 s', (c) => steps.suspend(c, { ms: 60_000, mayDie: true })]] : []),
      ['same name elsewhere', (c) => steps.elsewhere(c)],
      ['address changes', (c) => steps.moved(c)],
    ]

let cluster
process.on('exit', () => cluster?.drop())
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) process.on(signal, () => process.exit(1))

let ok = true
for (const count of values.members.split(',').map(Number)) {
  cluster = new steps.Cluster(count, {
    profile: values.profile ?? (values.short ? 'local' : 'lan'),
    idleMs: values.short ? 1_000 : 5_000,
  })
  for (const [step, act] of plan) {
    const began = performance.now()
    const line = { step, members: count }
    try {
      Object.assign(line, { ok: true }, await act(cluster))
      if (step.startsWith('split') && !values.short) {
        const [views, roots] = bounds(count)
        line.required = { viewsMs: views, rootsMs: roots, idleAgainMs: 30_000 }
        line.ok = line.viewsMs <= views && line.rootsMs <= roots
      }
    } catch (error) {
      line.ok = false
      line.error = error.message
    }
    line.seconds = Math.round((performance.now() - began) / 100) / 10
    console.log(JSON.stringify(line))
    ok &&= line.ok
    // What follows builds on a whole cluster.
    if (line.error !== undefined) break
  }
  await cluster.close()
  cluster = undefined
}
process.exitCode = ok ? 0 : 1
