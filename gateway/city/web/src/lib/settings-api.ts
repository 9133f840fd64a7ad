/** What the settings ask of the API. */
import { call, change } from './api'

export interface Session {
  id: string
  created: string
  expires: string
  address: string
  agent: string
  this: boolean
}

export interface Token {
  id: number
  label: string
  scope: 'read' | 'write'
  created: string
  expires: string
  expired: boolean
}

export interface Person {
  id: number
  name: string
  title: string
  role: string
  districts: string[]
  departments: string[]
  disabled: boolean
  active: boolean
  single_sign_on: boolean
  created: string
  last_sign_in: string | null
}

export type PersonChange = Partial<Pick<Person, 'title' | 'role' | 'districts' | 'departments' | 'disabled'>>

export interface AuditLine {
  id: number
  time: string
  who: string
  address: string
  action: string
  about: string
  detail: Record<string, unknown>
}

export const changePassword = (old: string, fresh: string) => change('/api/v1/session/password', { old, new: fresh }, 'PUT')
export const getSessions = () => call<{ sessions: Session[] }>('/api/v1/sessions')
export const endSession = (id: string) => change(`/api/v1/sessions/${id}`, undefined, 'DELETE')
export const endOtherSessions = () => change('/api/v1/sessions', undefined, 'DELETE')
export const getTokens = () => call<{ tokens: Token[] }>('/api/v1/tokens')
export const makeToken = (label: string, scope: string, days: number) => change<{ token: string; about: Token }>('/api/v1/tokens', { label, scope, days })
export const revokeToken = (id: number) => change(`/api/v1/tokens/${id}`, undefined, 'DELETE')
export const getPeople = () => call<{ people: Person[] }>('/api/v1/people')
export const addPerson = (person: PersonChange & { name: string }) => change<{ person: Person; link: string }>('/api/v1/people', person)
export const changePerson = (id: number, what: PersonChange) => change<Person>(`/api/v1/people/${id}`, what, 'PATCH')
export const makeLink = (id: number) => change<{ person: Person; link: string }>(`/api/v1/people/${id}/link`, {})
export const auditPath = (path: string, query: Record<string, string>): string => {
  const said = Object.entries(query).filter(([, value]) => value !== '')
  return `/api/v1/${path}?${new URLSearchParams(said).toString()}`
}
export const getAudit = (query: Record<string, string>) => call<{ audit: AuditLine[] }>(auditPath('audit', query))
