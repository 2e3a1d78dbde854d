// A network of namespaces that this process makes and removes: one bridge in a namespace of its own, one veth pair and one
// nftables table per host. Nothing of the machine's own interfaces and rules is touched.
import { spawnSync } from 'node:child_process'
import { readdirSync } from 'node:fs'

const PREFIX = 'hearsay'
const PATH = `${process.env.PATH ?? ''}:/usr/sbin:/sbin:/usr/local/sbin`

function command(line, input) {
  const [program, ...args] = line
  return spawnSync(program, args, { input, encoding: 'utf8', env: { ...process.env, PATH } })
}

function sh(line, input) {
  const { error, status, stderr } = command(line, input)
  if (error !== undefined || status !== 0) {
    throw new Error(`${line.join(' ')}: ${error?.message ?? stderr.trim()}`)
  }
}

const RULES = `
table inet ${PREFIX} {
  set cut { type ipv4_addr; }
  chain loss { }
  chain input {
    type filter hook input priority 0; policy accept;
    iifname lo accept
    ip saddr @cut drop
    jump loss
  }
}
`

/** Names of namespaces whose maker no longer runs. */
function orphans() {
  let names = []
  try {
    names = readdirSync('/run/netns')
  } catch {
    return []
  }
  return names.filter((name) => {
    const maker = new RegExp(`^${PREFIX}-(\\d+)-`).exec(name)?.[1]
    if (maker === undefined) return false
    try {
      process.kill(Number(maker), 0)
      return false
    } catch (error) {
      return error.code === 'ESRCH'
    }
  })
}

/** Why network namespaces cannot be made here; undefined if they can. */
export function obstacle() {
  if (process.platform !== 'linux') return `no network namespaces on ${process.platform}`
  if (process.getuid?.() !== 0) return 'not root'
  for (const [program, flag, debian] of [
    ['ip', '-V', 'iproute2'],
    ['nft', '-v', 'nftables'],
  ]) {
    if (command([program, flag]).error !== undefined)
      return `${program} is missing (Debian package ${debian})`
  }
  let net
  try {
    net = new Net(2)
    net.cut([0], [1])
    net.loss(0.5)
    return undefined
  } catch (error) {
    return error.message
  } finally {
    net?.close()
  }
}

/** `count` hosts on one bridge. */
export class Net {
  #made = []
  #hosts = []

  constructor(count) {
    for (const name of orphans()) command(['ip', 'netns', 'del', name])
    try {
      const hub = this.#namespace('hub')
      sh(['ip', '-n', hub, 'link', 'add', 'bridge', 'type', 'bridge'])
      sh(['ip', '-n', hub, 'link', 'set', 'bridge', 'up'])
      for (let index = 0; index < count; index++) this.#host(hub, index)
    } catch (error) {
      this.close()
      throw error
    }
  }

  #namespace(name) {
    const full = `${PREFIX}-${process.pid}-${name}`
    sh(['ip', 'netns', 'add', full])
    this.#made.push(full)
    sh(['ip', '-n', full, 'link', 'set', 'lo', 'up'])
    return full
  }

  #host(hub, index) {
    const ns = this.#namespace(`${index}`)
    const port = `v${index}`
    sh(['ip', '-n', hub, 'link', 'add', port, 'type', 'veth', 'peer', 'name', 'eth0', 'netns', ns])
    sh(['ip', '-n', hub, 'link', 'set', port, 'master', 'bridge'])
    sh(['ip', '-n', hub, 'link', 'set', port, 'up'])
    const ip = `10.77.0.${index + 1}`
    sh(['ip', '-n', ns, 'addr', 'add', `${ip}/16`, 'dev', 'eth0'])
    sh(['ip', '-n', ns, 'link', 'set', 'eth0', 'up'])
    sh(['ip', 'netns', 'exec', ns, 'nft', '-f', '-'], RULES)
    this.#hosts.push({ ns, ip })
  }

  #nft(index, rules) {
    sh(['ip', 'netns', 'exec', this.#hosts[index].ns, 'nft', '-f', '-'], `${rules}\n`)
  }

  /** The address of a host. */
  ip(index) {
    return this.#hosts[index].ip
  }

  /** What to put before a command line to run it on a host. */
  launcher(index) {
    return ['ip', 'netns', 'exec', this.#hosts[index].ns]
  }

  /** Nothing from the hosts `from` arrives at the hosts `at` any more; the other way is as it was. */
  cut(from, at) {
    const ips = from.map((index) => this.ip(index)).join(', ')
    for (const index of at) this.#nft(index, `add element inet ${PREFIX} cut { ${ips} }`)
  }

  /** Nothing passes between these groups of hosts. */
  partition(...groups) {
    for (const group of groups) {
      const others = groups.filter((other) => other !== group).flat()
      this.cut(others, group)
    }
  }

  /** Ends every cut. */
  heal() {
    for (const index of this.#hosts.keys()) this.#nft(index, `flush set inet ${PREFIX} cut`)
  }

  /** Each packet that arrives anywhere is lost with this probability, of streams, too. */
  loss(probability) {
    const percent = Math.round(probability * 100)
    const rule = percent > 0 ? `add rule inet ${PREFIX} loss numgen random mod 100 < ${percent} drop` : ''
    for (const index of this.#hosts.keys()) this.#nft(index, `flush chain inet ${PREFIX} loss\n${rule}`)
  }

  /** A host has another address from now on. */
  move(index) {
    const host = this.#hosts[index]
    const ip = host.ip.replace(/^10\.77\.(\d+)/, (_, third) => `10.77.${Number(third) + 1}`)
    sh(['ip', '-n', host.ns, 'addr', 'del', `${host.ip}/16`, 'dev', 'eth0'])
    sh(['ip', '-n', host.ns, 'addr', 'add', `${ip}/16`, 'dev', 'eth0'])
    host.ip = ip
  }

  /** Removes every namespace, and with them interfaces and rules. Idempotent; for exit handlers, too. */
  close() {
    for (const name of this.#made.splice(0)) command(['ip', 'netns', 'del', name])
  }
}
