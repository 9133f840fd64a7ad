import { describe, expect, it } from 'vitest'
import { ageOf, stateOf } from './freshness'
import { bytes, number, offset, span } from './format'
import { stepOf, withGaps, yRange } from './series'

describe('freshness', () => {
  it('gives a quick sensor thirty seconds before it is stale', () => {
    expect(stateOf(30, 5)).toBe('fresh')
    expect(stateOf(31, 5)).toBe('stale')
    expect(stateOf(51, 5)).toBe('silent')
  })
  it('counts in intervals for a slow sensor', () => {
    expect([stateOf(120, 60), stateOf(121, 60), stateOf(600, 60), stateOf(601, 60)]).toEqual(['fresh', 'stale', 'stale', 'silent'])
  })
  it('reads a time with an offset, and takes the future as now', () => {
    const now = Date.parse('2026-01-01T00:00:10Z')
    expect(ageOf('2026-01-01T08:00:00+08:00', now)).toBe(10)
    expect(ageOf('2026-01-01T00:00:20Z', now)).toBe(0)
    expect(ageOf('never', now)).toBe(Infinity)
  })
})

describe('numbers', () => {
  it('keep three significant digits and the whole part', () => {
    expect([number(1013.2), number(62.04), number(3.456, 2), number(0.1), number(99.96), number(45200, 0)]).toEqual([
      '1013', '62.0', '3.46', '0.1', '100', '45\u202f200',
    ])
  })
  it('show nothing as a dash and never a negative zero', () => {
    expect([number(null), number(Number.NaN), number(-0.01)]).toEqual(['–', '–', '0.0'])
  })
  it('name spans, sizes and offsets', () => {
    expect(span(59.9)).toEqual({ n: 59, unit: 'second' })
    expect(span(7300)).toEqual({ n: 2, unit: 'hour' })
    expect(bytes(3 * 1024 * 1024)).toBe('3.0 MiB')
    expect(offset({ getTimezoneOffset: () => -330 } as Date)).toBe('+05:30')
    expect(offset({ getTimezoneOffset: () => -480 } as Date)).toBe('+08')
  })
})

describe('series', () => {
  it('leave a gap where readings are missing', () => {
    const points = withGaps({ step: null, points: [[0, 1, 1], [10_000, 2, 1], [60_000, 3, 1]] }, 10)
    expect(points.map((p) => p[1])).toEqual([1, 2, null, 3])
  })
  it('scale to the accepted values', () => {
    expect(yRange([[0, 10, 1], [1, null, 9], [2, 20, 3]])).toEqual([9, 21])
    expect(yRange([[0, 0, 1], [1, 4, 1]])[0]).toBe(0)
    expect(yRange([])).toEqual([0, 1])
  })
  it('are thinned to about a thousand points', () => {
    expect([stepOf('1h', 10), stepOf('24h', 10), stepOf('24h', 300), stepOf('7d', 60)]).toEqual([null, 60, null, 600])
  })
})
