/** Which page is shown: it stands behind the # of the address, so that a link, a bookmark and the back button work. */
export const PLACES = ['wall', 'cases', 'gateways'] as const
export type Place = (typeof PLACES)[number]

/** The place that an address shows; what is no page is the wall. */
export function placeOf(hash: string): Place {
  const [name] = hash.replace(/^#\/?/, '').split(/[/?]/)
  return PLACES.find((place) => hash.startsWith('#/') && place === name) ?? 'wall'
}

/** The address of a page: `#/gateways`. */
export const addressOf = (path: string): string => `#/${path === 'wall' ? '' : path}`

class Router {
  hash = $state(location.hash)
  readonly place = $derived(placeOf(this.hash))
  /** The number of what the page shows in particular, as in `#/cases/17`; 0 for nothing. */
  readonly number = $derived(Number(/^#\/\w+\/(\d+)$/.exec(this.hash)?.[1] ?? 0))

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
