/** Which air quality index this viewer reads; kept in the browser. */
import type { AirIndexName } from './api'

export const INDICES: readonly AirIndexName[] = ['cn', 'kr', 'us']

function kept(): AirIndexName {
  const name = localStorage.getItem('citygate.index')
  return INDICES.find((index) => index === name) ?? 'cn'
}

class Index {
  name = $state<AirIndexName>(kept())

  choose(name: AirIndexName): void {
    this.name = name
    localStorage.setItem('citygate.index', name)
  }
}

export const index = new Index()
