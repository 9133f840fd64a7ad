/** What a sensor says of itself and of its link; it stands behind what it measures. */
export const LINK: readonly string[] = ['battery', 'rssi', 'snr', 'margin', 'linkquality', 'lost_uplinks']

/** Names of quantities as their kind lists them, unknown ones next, those of the link last. */
export function inOrder(names: readonly string[], known: readonly string[]): string[] {
  const place = (name: string) => (LINK.includes(name) ? 2e3 + LINK.indexOf(name) : known.includes(name) ? known.indexOf(name) : 1e3)
  return [...names].sort((a, b) => place(a) - place(b) || a.localeCompare(b))
}
