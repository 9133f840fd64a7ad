/** Words of cases in three languages: zh, en, ko. */
import type { CaseState, CaseStatus, Stage } from './api'

type Words = [zh: string, en: string, ko: string]

export const STATES: Record<CaseState, Words> = {
  reported: ['待立案', 'Reported', '접수'],
  filed: ['已立案', 'Filed', '등록'],
  dispatched: ['已派遣', 'Dispatched', '배정'],
  handling: ['处置中', 'Handling', '처리 중'],
  verifying: ['待核查', 'To be verified', '확인 대기'],
  deferred: ['缓办', 'Deferred', '보류'],
  closed: ['已结案', 'Closed', '종결'],
  refused: ['不予立案', 'Refused', '미등록'],
  void: ['作废', 'Void', '무효'],
  merged: ['已合并', 'Merged', '병합'],
}

export const STATUSES: Record<CaseStatus, Words> = {
  'in time': ['期限内', 'in time', '기한 내'],
  'running out': ['即将到期', 'running out', '기한 임박'],
  late: ['已超期', 'late', '기한 초과'],
  paused: ['暂停计时', 'paused', '기한 정지'],
  ended: ['已结束', 'ended', '종료'],
}

/** What one does, as a verb on a button; also what stands in the history. */
export const ACTIONS: Record<string, Words> = {
  open: ['上报', 'Open', '접수'],
  file: ['立案', 'File', '등록'],
  refuse: ['不予立案', 'Refuse', '미등록'],
  dispatch: ['派遣', 'Dispatch', '배정'],
  accept: ['接收', 'Accept', '수락'],
  handled: ['处置完成', 'Say it is handled', '처리 완료'],
  confirm: ['核查通过', 'Confirm and close', '확인 후 종결'],
  reject: ['核查不通过', 'Send back', '재처리 요청'],
  resume: ['恢复处置', 'Resume', '재개'],
  merge: ['合并到', 'Merge into', '병합'],
  merged: ['并入重复案件', 'Duplicate merged', '중복 병합'],
  note: ['备注', 'Add a note', '메모 추가'],
  'ask-return': ['申请回退', 'Ask to return it', '반려 요청'],
  'ask-void': ['申请作废', 'Ask to void it', '무효 요청'],
  'ask-extension': ['申请延期', 'Ask for more time', '연장 요청'],
  'ask-deferral': ['申请缓办', 'Ask to defer it', '보류 요청'],
  approve: ['批准', 'Approve', '승인'],
  decline: ['驳回', 'Decline', '거절'],
  photo: ['上传照片', 'Add a photograph', '사진 추가'],
  graver: ['等级上升', 'Became graver', '등급 상승'],
  over: ['原因消除', 'Over by itself', '자동 종결'],
}

export const ASKED: Record<'return' | 'void' | 'extension' | 'deferral', Words> = {
  return: ['申请回退', 'asks to return it', '반려 요청'],
  void: ['申请作废', 'asks to void it', '무효 요청'],
  extension: ['申请延期', 'asks for more time', '연장 요청'],
  deferral: ['申请缓办', 'asks to defer it', '보류 요청'],
}

/** How well cases are dealt with; the names are those of GB/T 30428. */
export const FIGURES: Record<'reported' | 'filing_rate' | 'accurate_dispatch_rate' | 'handled_on_time' | 'closed_on_time' | 'rework_rate' | 'hours_per_case' | 'closed_by_themselves', Words> = {
  reported: ['案件数', 'Cases', '사건 수'],
  filing_rate: ['立案率', 'Filed', '등록률'],
  accurate_dispatch_rate: ['准确派遣率', 'Dispatched right', '정확 배정률'],
  handled_on_time: ['按期处置率', 'Handled on time', '기한 내 처리율'],
  closed_on_time: ['按期结案率', 'Closed on time', '기한 내 종결률'],
  rework_rate: ['返工率', 'Rework', '재처리율'],
  hours_per_case: ['每案用时', 'Hours a case', '건당 시간'],
  closed_by_themselves: ['自行结案', 'Closed by themselves', '자동 종결'],
}

/** Before and after, over the photographs that stand side by side. */
export const STAGES: Record<Stage, Words> = {
  before: ['处置前', 'Before', '처리 전'],
  after: ['处置后', 'After', '처리 후'],
}

/** Steps that need a reason, hours, a department, or another case. */
export const NEEDS = {
  note: new Set(['refuse', 'handled', 'reject', 'note', 'ask-return', 'ask-void', 'ask-extension', 'ask-deferral', 'decline']),
  hours: new Set(['ask-extension', 'ask-deferral']),
}
