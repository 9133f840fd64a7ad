// @vitest-environment node
import { describe, expect, it, vi } from 'vitest'
import type { Sensor } from './api'
import { neighboursOf } from './nearby'
import { inOrder } from './quantities'

vi.stubGlobal('location', { hash: '', search: '' })
vi.stubGlobal('addEventListener', () => undefined)
const { addressOf, partOf, queryOf, placeOf, sensorPath } = await import('./route.svelte')
const { rotationOf } = await import('./kiosk.svelte')

describe('addresses', () => {
  it('name a page, and what is no page is the wall', () => {
    expect(['#/gateways', '#/', '', '#events', '#link=secret', '#/nowhere', '#/gateways?x=1'].map(placeOf)).toEqual([
      'gateways', 'wall', 'wall', 'wall', 'wall', 'wall', 'gateways',
    ])
  })
  it('may name a time', () => {
    expect(placeOf('#/past?at=2026-01-01T00:00:00Z')).toBe('past')
    expect(queryOf('#/past?at=2026-01-01T00:00:00Z').get('at')).toBe('2026-01-01T00:00:00Z')
    expect(queryOf('#/past').get('at')).toBeNull()
  })
  it('lead to the page they are made for', () => {
    expect(placeOf(addressOf('gateways'))).toBe('gateways')
    expect(placeOf(addressOf('wall'))).toBe('wall')
  })
})

describe('the address of a sensor', () => {
  it('leads to it, whatever its id holds', () => {
    for (const id of ['air:old-town:air-03', 'air:a/b?c#d:100 %', 'air:旧城:x']) {
      expect(partOf(addressOf(sensorPath(id)))).toBe(id)
      expect(placeOf(addressOf(sensorPath(id)))).toBe('sensors')
    }
  })
  it('without an id is the list, and with a broken one says what it is', () => {
    expect(placeOf('#/sensors')).toBe('sensors')
    expect(partOf('#/sensors/100%')).toBe('100%')
  })
})

describe('quantities', () => {
  it('that are measured come before those of the link', () => {
    expect(inOrder(['rssi', 'x', 'pm10', 'battery', 'pm25'], ['battery', 'pm25', 'pm10'])).toEqual(['pm25', 'pm10', 'x', 'battery', 'rssi'])
  })
})

describe('neighbours', () => {
  const at = (id: string, kind: string, lat: number | null, lon: number | null, quantity = 'pm25') =>
    ({ id, kind, lat, lon, readings: [{ quantity }] }) as unknown as Sensor
  it('are the nearest of the kind that measure the same', () => {
    const own = at('own', 'air', 30, 120)
    const all = [own, at('far', 'air', 31, 120), at('near', 'air', 30.01, 120), at('other', 'water', 30, 120), at('nowhere', 'air', null, null), at('o3', 'air', 30, 120, 'o3')]
    expect(neighboursOf(own, 'pm25', all).map((near) => [near.sensor.id, Math.round(near.km)])).toEqual([['near', 1], ['far', 111]])
    expect(neighboursOf(at('nowhere', 'air', null, null), 'pm25', all)).toEqual([])
  })
})

describe('a kiosk', () => {
  it('is only what is asked for', () => expect(rotationOf('?theme=dark')).toBeNull())
  it('turns the pages that exist, in the order given', () => {
    expect(rotationOf('?kiosk=gateways,nowhere,wall&seconds=12')).toEqual({ pages: ['gateways', 'wall'], seconds: 12 })
  })
  it('turns all pages when none is named, and never faster than can be read', () => {
    const rotation = rotationOf('?kiosk&seconds=1')
    expect(rotation?.pages).toContain('gateways')
    expect(rotation?.seconds).toBe(30)
  })
})
