/** Kiosk mode: `?kiosk=wall,gateways&seconds=30` shows pages in turn, and waits when somebody is at the screen. */
import { MENU, placeOf, router } from './route.svelte'

const SECONDS = 30
const SHORTEST = 5
/** How long the rotation waits after somebody touched the screen or a key. */
const PATIENCE = 60

export interface Rotation {
  pages: string[]
  seconds: number
}

/** The rotation that an address asks for; null for none. Words that are no page are left out; without any, all pages. */
export function rotationOf(search: string): Rotation | null {
  const query = new URLSearchParams(search)
  const wanted = query.get('kiosk')
  if (wanted === null) return null
  const named = wanted.split(',').map((page) => page.trim()).filter((page) => page === 'wall' || placeOf(`#/${page}`) !== 'wall')
  const seconds = Number(query.get('seconds') ?? SECONDS)
  return { pages: named.length ? named : [...MENU], seconds: seconds >= SHORTEST ? seconds : SECONDS }
}

class Kiosk {
  readonly rotation = rotationOf(location.search)
  at = $state(0)
  paused = $state(false)
  #left = 0

  /** Shows the first page and turns to the next one when its time is over, until the page is left. */
  start(): (() => void) | undefined {
    const { rotation } = this
    if (!rotation) return undefined
    const touched = () => (this.#left = Math.max(this.#left, PATIENCE))
    this.#show(0)
    const timer = setInterval(() => {
      if (this.paused) return
      this.#left -= 1
      if (this.#left <= 0) this.#show((this.at + 1) % rotation.pages.length)
    }, 1000)
    addEventListener('pointerdown', touched)
    addEventListener('keydown', touched)
    return () => {
      clearInterval(timer)
      removeEventListener('pointerdown', touched)
      removeEventListener('keydown', touched)
    }
  }

  #show(at: number): void {
    this.at = at
    this.#left = this.rotation?.seconds ?? 0
    router.go(this.rotation?.pages[at] ?? 'wall', true)
  }
}

export const kiosk = new Kiosk()
