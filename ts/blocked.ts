/** How often the loop of this thread is looked at, and from which delay on it counts as blocked. */
const PERIOD_MS = 250
const BLOCKED_MS = 100

let watchers = 0
let timer: NodeJS.Timeout | undefined
let due = 0
let blocked = 0

function look(): void {
  const late = performance.now() - due
  if (late > BLOCKED_MS) blocked += late
  due = performance.now() + PERIOD_MS
}

/** Looks at the event loop of this thread until the returned function is called. Never holds the process. */
export function watchLoop(): () => void {
  if (watchers++ === 0) {
    due = performance.now() + PERIOD_MS
    timer = setInterval(look, PERIOD_MS).unref()
  }
  let released = false
  return () => {
    if (released) return
    released = true
    if (--watchers === 0) clearInterval(timer)
  }
}

/** Milliseconds this thread's JavaScript has been blocked while it was looked at. */
export function blockedMs(): number {
  return Math.round(blocked)
}
