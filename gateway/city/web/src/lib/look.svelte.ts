/** How the page looks to this viewer: theme (kept in the browser) and whether the screen is a phone's. */
export type Theme = 'dark' | 'light'

class Look {
  theme = $state<Theme>('dark')
  narrow = $state(false)
  /** Several screens side by side. */
  splice = $state(false)
  still = $state(false)

  constructor() {
    const kept = localStorage.getItem('citygate.theme')
    const light = kept ? kept === 'light' : matchMedia('(prefers-color-scheme: light)').matches
    this.wear(light ? 'light' : 'dark')
    const watch = (query: string, take: (matches: boolean) => void) => {
      const list = matchMedia(query)
      take(list.matches)
      list.addEventListener('change', () => take(list.matches))
    }
    watch('(max-width: 899px)', (matches) => (this.narrow = matches))
    watch('(min-width: 3000px)', (matches) => (this.splice = matches))
    watch('(prefers-reduced-motion: reduce)', (matches) => (this.still = matches))
  }

  private wear(theme: Theme): void {
    this.theme = theme
    document.documentElement.dataset.theme = theme
  }

  choose(theme: Theme): void {
    this.wear(theme)
    localStorage.setItem('citygate.theme', theme)
  }

  /** A colour of the current theme, for canvases that know no CSS variables. */
  colour(name: string): string {
    void this.theme
    return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim()
  }
}

export const look = new Look()
