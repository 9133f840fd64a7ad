/** Something that a person tries: it is busy meanwhile, and says in words what went wrong. */
import { ApiError } from './api'
import { town } from './town.svelte'
import { words } from './words.svelte'

export class Attempt {
  trouble = $state('')
  busy = $state(false)

  /** Does it; false when it failed. `explain` has better words for some statuses. */
  async do(what: () => Promise<unknown>, explain: Partial<Record<number, string>> = {}): Promise<boolean> {
    this.busy = true
    this.trouble = ''
    try {
      await what()
      return true
    } catch (error) {
      if (error instanceof ApiError && error.status === 401) await town.connect()
      else this.trouble = error instanceof ApiError && error.status < 500 ? (explain[error.status] ?? error.message) : words.t('unreachable')
      return false
    } finally {
      this.busy = false
    }
  }
}
