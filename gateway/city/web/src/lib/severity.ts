import type { Alert, CityEvent, Flag, Severity, State } from './api'

export const SEVERITIES: readonly Severity[] = ['blue', 'yellow', 'orange', 'red']
/** The shape that goes with each colour, as an SVG path in a 16 × 16 box. */
export const SHAPES: Record<Severity, string> = {
  blue: 'M3 3h10v10H3z',
  yellow: 'M8 1.5 15 14H1z',
  orange: 'M8 .8 15.2 8 8 15.2.8 8z',
  red: 'M8 1a7 7 0 1 0 0 14A7 7 0 1 0 8 1z',
}
export const QUALITY_SHAPES = {
  suspect: 'M8 2.5 14 13.5H2z',
  failed: 'M3 3l10 10M13 3 3 13',
  maintenance: 'M10.5 1.5a4 4 0 0 0-3.7 5.3L1.5 12a1.8 1.8 0 0 0 2.5 2.5l5.2-5.3a4 4 0 0 0 5-5.2L11.8 6.4 9.6 6.4 9.6 4.2 12 1.8a4 4 0 0 0-1.5-.3z',
} as const

export const rank = (severity: Severity | 'none'): number => (severity === 'none' ? -1 : SEVERITIES.indexOf(severity))

export const isOpen = (event: CityEvent): boolean => event.until === null && event.severity !== 'none'

/** Open first and the gravest of them on top, then the latest. */
export function byUrgency(a: CityEvent, b: CityEvent): number {
  const open = Number(isOpen(b)) - Number(isOpen(a))
  if (open) return open
  const grave = isOpen(a) ? rank(b.severity) - rank(a.severity) : 0
  return grave || Date.parse(b.until ?? b.time) - Date.parse(a.until ?? a.time)
}

const STATES: readonly Alert['state'][] = ['open', 'acknowledged', 'ended']

/** What nobody has taken notice of first, what has ended last; the gravest on top, then the latest. */
export function byNeed(a: Alert, b: Alert): number {
  const state = STATES.indexOf(a.state) - STATES.indexOf(b.state)
  if (state) return state
  const grave = a.state === 'ended' ? 0 : rank(b.severity) - rank(a.severity)
  return grave || Date.parse(b.until ?? b.since) - Date.parse(a.until ?? a.since)
}

/** The name of the map's mark for a sensor: an open event first, then silence, then the quality of its data. */
export function markOf(state: State, flag: Flag, severity: Severity | null): string {
  if (severity) return `event-${severity}`
  if (state === 'silent') return 'silent'
  if (flag === 4) return 'failed'
  return flag === 3 ? 'suspect' : 'good'
}
