/** The quantities that tell a kind's story, the first of them alone where there is room for one. */
const HEADLINES: Record<string, readonly string[]> = {
  air: ['pm25', 'o3'],
  water: ['level', 'nh3n'],
  noise: ['laeq', 'lamax'],
  weather: ['temperature', 'humidity'],
  soil: ['moisture', 'temperature'],
  traffic: ['speed', 'flow'],
  parking: ['free', 'capacity'],
}

/** The headline quantities of a kind among those it has; a kind unknown here shows its first. */
export function headlines(kind: string, has: readonly string[]): string[] {
  const known = (HEADLINES[kind] ?? []).filter((name) => has.includes(name))
  return known.length ? known : has.slice(0, 1)
}
