/** What a row says of an event's value. */
import type { CityEvent } from './api'
import { number } from './format'
import { SILENCE, town } from './town.svelte'
import { words } from './words.svelte'

/** The value, without its unit; of a silence, how long it is. */
export function measured(event: CityEvent): string {
  if (event.quantity === SILENCE) return words.age(event.value ?? 0)
  return number(event.value, town.quantity(event.kind, event.quantity)?.decimals)
}

/** Over or under which limit it is. */
export function bound(event: CityEvent): string {
  if (event.limit === null || event.value === null || event.quantity === SILENCE) return ''
  const decimals = town.quantity(event.kind, event.quantity)?.decimals ?? 1
  return words.t(event.value >= event.limit ? 'above' : 'below', { limit: number(event.limit, decimals) })
}
