import b from 'benny'
import { Cluster } from '../ts/index.js'

const cluster = await Cluster.start()
const { state } = cluster
const value = { on: true, ratio: 0.25, owners: ['api-1', 'api-2'] }
for (let i = 0; i < 1_000; i++) state.set(`flags/${i}`, value)
let n = 0

await b.suite(
  'state, 1,000 keys of 55 B, json',
  b.add('set', () => {
    state.set(`flags/${n++ % 1_000}`, value)
  }),
  b.add('get', () => {
    state.get(`flags/${n++ % 1_000}`)
  }),
  b.add('get of a key that is not there', () => {
    state.get('nothing')
  }),
  b.add('has', () => {
    state.has(`flags/${n++ % 1_000}`)
  }),
  b.add('entries of 10', () => {
    state.entries({ prefix: 'flags/11' })
  }),
  b.add('members', () => {
    cluster.members()
  }),
  b.cycle(),
  b.complete(),
)
await cluster.stop()
