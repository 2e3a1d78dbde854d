// A member's process as its parent sees it.
import { spawn } from 'node:child_process'
import { fileURLToPath } from 'node:url'

const script = fileURLToPath(new URL('./member.mjs', import.meta.url))

export class MemberProcess {
  #calls = new Map()
  #next = 0

  /** `options` go over the demo's; `launcher` is put before the command line. */
  static async start(name, seeds, options = {}, launcher = []) {
    const member = new MemberProcess()
    member.name = name
    const [program, ...args] = [...launcher, process.execPath, script]
    member.child = spawn(program, args, { stdio: ['ignore', 2, 2, 'ipc'], serialization: 'advanced' })
    const ready = new Promise((resolve, reject) => {
      member.child.once('error', reject)
      member.child.once('exit', (code) => {
        reject(new Error(`${name} ended with ${code}`))
        for (const call of member.#calls.values()) call.reject(new Error(`${name} ended`))
        member.#calls.clear()
      })
      member.child.on('message', (message) => {
        if (message.ready) {
          resolve()
          return
        }
        const call = member.#calls.get(message.id)
        member.#calls.delete(message.id)
        if (message.error === undefined) {
          call?.resolve(message.value)
        } else {
          call?.reject(new Error(`${name}: ${message.error}`))
        }
      })
    })
    member.exited = new Promise((resolve) => member.child.once('exit', resolve))
    await ready
    const { address, pid } = await member.call('start', {
      name,
      cluster: 'demo',
      bind: '127.0.0.1:0',
      seeds,
      profile: 'local',
      ...options,
    })
    member.address = address
    member.pid = pid
    return member
  }

  call(call, ...args) {
    if (!this.child.connected) {
      return Promise.reject(new Error(`${this.name} is not running`))
    }
    const id = ++this.#next
    return new Promise((resolve, reject) => {
      this.#calls.set(id, { resolve, reject })
      this.child.send({ id, call, args })
    })
  }

  async kill() {
    this.child.kill('SIGKILL')
    await this.exited
  }

  async end() {
    if (this.child.connected) {
      await Promise.race([this.call('stop'), this.exited])
      this.child.disconnect()
    }
    const timer = setTimeout(() => this.child.kill('SIGKILL'), 3000)
    await this.exited
    clearTimeout(timer)
  }
}
