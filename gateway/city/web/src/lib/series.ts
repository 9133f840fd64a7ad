import type { Point, Series } from './api'

export const RANGES = { '1h': 3600, '24h': 86400, '7d': 604800 } as const
export type Range = keyof typeof RANGES

/** Seconds of the periods that a sensor's page shows. */
export const PERIODS = { '1h': 3600, '24h': 86400, '7d': 604800, '30d': 2592000 } as const
export type Period = keyof typeof PERIODS

/** Seconds a point of the chart stands for; null is every reading. About a thousand points a chart. */
export function stepOf(range: Range, interval: number): number | null {
  if (range === '1h') return interval < 4 ? 5 : null
  const step = range === '24h' ? 60 : 600
  return interval >= step ? null : step
}

/** The points with a null put into every hole longer than 2.5 times the expected distance: a gap stays a gap. */
export function withGaps(series: Pick<Series, 'points' | 'step'>, interval: number): Point[] {
  const longest = 2500 * Math.max(series.step ?? 0, interval, 1)
  const out: Point[] = []
  let last: number | null = null
  for (const point of series.points) {
    if (last !== null && point[0] - last > longest) out.push([last + 1, null, 9])
    out.push(point)
    last = point[0]
  }
  return out
}

/** The y range of the accepted values, with a tenth of room; quarantined values do not stretch it. */
export function yRange(points: readonly Point[]): [number, number] {
  let low = Infinity
  let high = -Infinity
  for (const [, value, , min, max] of points) {
    if (value === null) continue
    low = Math.min(low, min ?? value)
    high = Math.max(high, max ?? value)
  }
  if (low > high) return [0, 1]
  const room = Math.max((high - low) * 0.1, Math.abs(high) * 0.005, 0.05)
  return [low >= 0 && low - room < 0 ? 0 : low - room, high + room]
}
