// @vitest-environment node
import { describe, expect, it, vi } from 'vitest'

vi.stubGlobal('location', { hash: '', search: '' })
vi.stubGlobal('addEventListener', () => undefined)
const { addressOf, placeOf } = await import('./route.svelte')
const { rotationOf } = await import('./kiosk.svelte')

describe('addresses', () => {
  it('name a page, and what is no page is the wall', () => {
    expect(['#/gateways', '#/', '', '#events', '#link=secret', '#/nowhere', '#/gateways?x=1'].map(placeOf)).toEqual([
      'gateways', 'wall', 'wall', 'wall', 'wall', 'wall', 'gateways',
    ])
  })
  it('lead to the page they are made for', () => {
    expect(placeOf(addressOf('gateways'))).toBe('gateways')
    expect(placeOf(addressOf('wall'))).toBe('wall')
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
