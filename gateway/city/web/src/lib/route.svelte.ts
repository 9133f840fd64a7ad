/** Which page is shown: it stands behind the # of the address, so that a link, a bookmark and the back button work. */
export const PLACES = ['wall', 'environment', 'traffic', 'emergency', 'administration', 'cases', 'month', 'sensors', 'gateways', 'past', 'settings'] as const
export type Place = (typeof PLACES)[number]
/** The places of the menu, which are also those that a kiosk turns. */
export const MENU = PLACES.filter((place) => place !== 'settings' && place !== 'month')

/** The place that an address shows; what is no page is the wall. */
export function placeOf(hash: string): Place {
  const [name] = hash.replace(/^#\/?/, '').split(/[/?]/)
  return PLACES.find((known) => hash.startsWith('#/') && known === name) ?? 'wall'
}

/** What of a place an address shows: the id in `#/sensors/air:old-town:air-03`. */
export function partOf(hash: string): string {
  const part = /^#\/[^/?]+\/([^?]+)/.exec(hash)?.[1] ?? ''
  try {
    return decodeURIComponent(part)
  } catch {
    return part
  }
}

/** What stands behind the question mark of an address: the time in `#/past?at=…`. */
export const queryOf = (hash: string): URLSearchParams => new URLSearchParams(/\?(.*)$/.exec(hash)?.[1] ?? '')

/** The path of a sensor's page. */
export const sensorPath = (id: string): string => `sensors/${encodeURIComponent(id).replaceAll('%3A', ':')}`

/** The address of a page: `#/gateways`. */
export const addressOf = (path: string): string => `#/${path === 'wall' ? '' : path}`

class Router {
  hash = $state(location.hash)
  readonly place = $derived(placeOf(this.hash))
  /** The number of what the page shows in particular, as in `#/cases/17`; 0 for nothing. */
  readonly number = $derived(Number(/^#\/\w+\/(\d+)$/.exec(this.hash)?.[1] ?? 0))
  readonly part = $derived(partOf(this.hash))

  constructor() {
    addEventListener('hashchange', () => (this.hash = location.hash))
  }

  /** Goes to a page; `silently` leaves no entry for the back button. */
  go(path: string, silently = false): void {
    const address = addressOf(path)
    if (silently) history.replaceState(null, '', address)
    else location.hash = address
    this.hash = address
  }
}

export const router = new Router()
