/** The last day of quantities, asked for while something shows them. */
import { SvelteMap } from 'svelte/reactivity'
import { getCourses, type Course, type Courses } from './api'
import { town } from './town.svelte'

const EVERY_MS = 300_000
const kept = new SvelteMap<string, Courses>()

/** Keeps quantities of a kind (no directions, which have no mean) current for as long as the component lives that calls this while it is made. */
export function follow(kind: () => string, quantities: () => readonly string[]): void {
  const averaged = (name: string) => ![undefined, '°'].includes(town.quantity(kind(), name)?.unit)
  const key = $derived(town.lostSince === null ? [kind(), ...quantities().filter(averaged)].join(' ') : '')
  $effect(() => {
    const [one = '', ...names] = key.split(' ')
    const load = () => {
      for (const name of names) getCourses(one, name).then((found) => kept.set(`${one} ${name}`, found), () => undefined)
    }
    load()
    const again = setInterval(load, EVERY_MS)
    return () => clearInterval(again)
  })
}

/** The courses of a quantity of a kind, as far as they are known. */
export const coursesOf = (kind: string, quantity: string): readonly Course[] => kept.get(`${kind} ${quantity}`)?.courses ?? []

export const courseOf = (kind: string, quantity: string, id: string): Course | undefined => coursesOf(kind, quantity).find((course) => course.id === id)

/** The mean of all courses of a quantity. */
export function townCourse(kind: string, quantity: string): Course | undefined {
  const courses = coursesOf(kind, quantity)
  if (!courses.length) return undefined
  const mean = (list: number[]) => list.reduce((sum, value) => sum + value, 0) / list.length
  const hours = new Map<number, number[]>()
  for (const [at, value] of courses.flatMap((course) => course.points)) hours.set(at, [...(hours.get(at) ?? []), value])
  const usual = courses.flatMap((course) => course.usual ?? [])
  return {
    id: '',
    points: [...hours].sort(([a], [b]) => a - b).map(([at, values]) => [at, mean(values)]),
    usual: usual.length ? mean(usual) : null,
    days: Math.max(...courses.map((course) => course.days)),
  }
}
