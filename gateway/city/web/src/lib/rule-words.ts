/** What a rule says, in a sentence of each language. */
import type { Settings } from './settings-api'
import { town } from './town.svelte'
import { words } from './words.svelte'

type Words = [zh: string, en: string, ko: string]

/** The forms of a rule, as a person chooses them. */
export const FORMS = {
  above: ['数值高于界限', 'a value over a limit', '값이 한계 초과'],
  below: ['数值低于界限', 'a value under a limit', '값이 한계 미만'],
  change: ['数值变化过快', 'a value changes fast', '값이 빠르게 변화'],
  absent: ['没有数据', 'nothing is sent', '데이터 없음'],
  when: ['表达式', 'an expression', '수식'],
  'above-index': ['指数高于界限', 'an index over a limit', '지수가 한계 초과'],
  'below-index': ['指数低于界限', 'an index under a limit', '지수가 한계 미만'],
} as const satisfies Record<string, Words>
export type Form = keyof typeof FORMS

export const INDEX_NAMES: Record<string, Words> = {
  aqi: ['中国 AQI', 'Chinese AQI', '중국 AQI'],
  cai: ['韩国 CAI', 'Korean CAI', '한국 CAI'],
  us_aqi: ['美国 AQI', 'US AQI', '미국 AQI'],
  congestion: ['拥堵指数', 'congestion index', '혼잡 지수'],
  water_class: ['水质类别（1–6）', 'water class (1 to 6)', '수질 등급(1–6)'],
  water_over: ['劣于目标的断面数', 'sections below their target', '목표 미달 지점 수'],
  noise_over: ['噪声超标测点数', 'noise meters over their limit', '소음 기준 초과 지점 수'],
}

const SENTENCE = {
  above: ['{what} ≥ {limit}', '{what} ≥ {limit}', '{what} ≥ {limit}'],
  below: ['{what} ≤ {limit}', '{what} ≤ {limit}', '{what} ≤ {limit}'],
  rise: ['{what} 在 {within} 内上升 {by}', '{what} rises by {by} within {within}', '{what}, {within} 안에 {by} 상승'],
  fall: ['{what} 在 {within} 内下降 {by}', '{what} falls by {by} within {within}', '{what}, {within} 안에 {by} 하강'],
  absent: ['{what}超过 {absent} 没有数据', '{what}: nothing sent for {absent}', '{what}: {absent} 넘게 데이터 없음'],
  clear: ['恢复值 {clear}', 'over at {clear}', '해제 {clear}'],
  hold: ['持续 {hold}', 'for {hold}', '{hold} 지속'],
  together: ['{n} 个传感器同时', '{n} sensors together', '센서 {n}개 동시'],
  town: ['全城', 'in the whole town', '도시 전체'],
  where: ['{pattern}', 'at {pattern}', '{pattern}'],
} satisfies Record<string, Words>

export function formOf(settings: Settings): Form {
  if (settings['when'] !== undefined) return 'when'
  if (settings['absent'] !== undefined) return 'absent'
  if (settings['change'] !== undefined) return 'change'
  const side = settings['below'] === undefined ? 'above' : 'below'
  return settings['index'] === undefined ? side : `${side}-index`
}

/** A rule in a sentence: `PM10 ≥ 200 µg/m³, for 10m, 3 sensors together in the whole town`. */
export function sentence(settings: Settings): string {
  const said = (word: keyof typeof SENTENCE, values: Record<string, string> = {}) => words.pick(SENTENCE[word], values)
  const text = (key: string) => String(settings[key] ?? '')
  const kind = town.kinds.find((item) => item.kind === settings['kind'])
  const quantity = kind?.quantities.find((item) => item.name === settings['quantity'])
  const index = INDEX_NAMES[text('index')]
  const unit = quantity?.unit ? ` ${quantity.unit}` : ''
  const of = words.title(kind?.title, text('kind'))
  const what = index ? words.pick(index) : settings['quantity'] === undefined ? of : `${of} · ${words.title(quantity?.title, text('quantity'))}`
  const parts: string[] = []
  switch (formOf(settings)) {
    case 'when': parts.push(`${of}: ${text('when')}`); break
    case 'absent': parts.push(said('absent', { what, absent: text('absent') })); break
    case 'change': {
      const by = Number(settings['change'])
      parts.push(said(by < 0 ? 'fall' : 'rise', { what, within: text('within'), by: `${Math.abs(by)}${unit}` }))
      break
    }
    case 'below': case 'below-index': parts.push(said('below', { what, limit: text('below') + unit })); break
    default: parts.push(said('above', { what, limit: text('above') + unit }))
  }
  if (settings['clear'] !== undefined) parts.push(said('clear', { clear: text('clear') + unit }))
  if (settings['hold'] !== undefined) parts.push(said('hold', { hold: text('hold') }))
  if (settings['sensors'] !== undefined) parts.push(said('together', { n: text('sensors') }))
  if (settings['of'] === 'town') parts.push(said('town'))
  const place = [settings['site'], settings['sensor']].filter((part) => part !== undefined && part !== '*').join(' : ')
  if (place) parts.push(said('where', { pattern: place }))
  return parts.join(words.language === 'zh' ? '，' : ', ')
}
