import type { State } from './api'

/** Age in seconds of an ISO time at `now` (ms); never negative, so a fast sensor clock does not look odd. */
export function ageOf(time: string, now: number): number {
  const at = Date.parse(time)
  return Number.isNaN(at) ? Infinity : Math.max(0, (now - at) / 1000)
}

/** How alive a sensor is: fresh up to twice its interval (at least 30 s), stale up to ten times, then silent. */
export function stateOf(age: number, interval: number): State {
  const fresh = Math.max(30, 2 * interval)
  if (age <= fresh) return 'fresh'
  return age <= Math.max(fresh, 10 * interval) ? 'stale' : 'silent'
}
