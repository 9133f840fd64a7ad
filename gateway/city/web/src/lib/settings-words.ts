/** Words of the settings in three languages: zh, en, ko. */
import { words } from './words.svelte'

type Words = [zh: string, en: string, ko: string]

export const SETTINGS = {
  viewing: ['显示', 'Viewing', '보기'],
  account: ['我的账户', 'My account', '내 계정'],
  people: ['人员', 'People', '사용자'],
  audit: ['审计记录', 'Audit trail', '감사 기록'],
  parts: ['设置分类', 'Parts of the settings', '설정 분류'],
  // viewing
  theme: ['主题', 'Theme', '테마'],
  kept: ['这些选择保存在此浏览器中，立即生效。', 'These choices are kept in this browser and hold at once.', '이 설정은 이 브라우저에 저장되며 바로 적용됩니다.'],
  kiosk: ['轮播（大屏）', 'Kiosk', '키오스크'],
  kioskHelp: ['在无人操作的屏幕上依次显示所选页面。把地址设为该浏览器的首页即可。', 'Shows the chosen pages in turn on a screen that nobody operates. Make this address the home page of its browser.', '조작자가 없는 화면에서 선택한 페이지를 차례로 보여 줍니다. 이 주소를 브라우저 시작 페이지로 지정하세요.'],
  kioskPages: ['轮播页面', 'Pages in turn', '차례로 볼 페이지'],
  kioskSeconds: ['每页秒数（至少 5）', 'Seconds a page (5 at least)', '페이지당 초(최소 5)'],
  kioskStart: ['开始轮播', 'Start the kiosk', '키오스크 시작'],
  address: ['地址', 'Address', '주소'],
  // account
  nobodyYet: ['尚无人设置密码，本机可自由查看。要启用账户，请打开服务器上 setup-link 文件中的链接。', 'Nobody has a password yet: this machine reads freely. To turn accounts on, open the link in the file setup-link on the server.', '아직 비밀번호를 만든 사람이 없어 이 컴퓨터에서 자유롭게 볼 수 있습니다. 계정을 사용하려면 서버의 setup-link 파일에 있는 링크를 여세요.'],
  byReadToken: ['您以访问令牌登录，没有个人账户。', 'You are signed in by the read token, which is nobody’s account.', '읽기 토큰으로 로그인했습니다. 개인 계정이 아닙니다.'],
  role: ['角色', 'Role', '역할'],
  districts: ['辖区', 'Districts', '구역'],
  departments: ['部门', 'Departments', '부서'],
  all: ['全部', 'all', '전체'],
  none: ['无', 'none', '없음'],
  changePassword: ['修改密码', 'Change the password', '비밀번호 변경'],
  oldPassword: ['当前密码', 'Present password', '현재 비밀번호'],
  newPassword: ['新密码', 'New password', '새 비밀번호'],
  passwordChanged: ['密码已修改，其他登录已全部结束。', 'The password is changed; every other session has ended.', '비밀번호를 변경했습니다. 다른 로그인은 모두 종료되었습니다.'],
  oldWrong: ['当前密码不正确。', 'The present password is wrong.', '현재 비밀번호가 맞지 않습니다.'],
  sessions: ['登录中的设备', 'Where you are signed in', '로그인된 곳'],
  thisOne: ['当前', 'this one', '현재'],
  endSession: ['退出此处', 'Sign out there', '여기서 로그아웃'],
  endOthers: ['退出其他所有设备', 'Sign out everywhere else', '다른 곳 모두 로그아웃'],
  sinceTime: ['登录于', 'Since', '로그인 시각'],
  expires: ['到期', 'Expires', '만료'],
  expired: ['已过期', 'expired', '만료됨'],
  tokens: ['API 令牌', 'API tokens', 'API 토큰'],
  tokensHelp: ['供程序使用。令牌只显示一次，过期后失效。', 'For programs. A token is shown once, and ends when it expires.', '프로그램용입니다. 토큰은 한 번만 표시되며 만료되면 쓸 수 없습니다.'],
  noTokens: ['还没有令牌。', 'No tokens yet.', '토큰이 없습니다.'],
  label: ['用途', 'What for', '용도'],
  scope: ['范围', 'Scope', '범위'],
  scopeRead: ['只读', 'read only', '읽기 전용'],
  scopeWrite: ['与我相同的权限', 'whatever I may do', '내 권한과 같음'],
  days: ['有效天数（1–366）', 'Days (1–366)', '유효 일수(1–366)'],
  makeToken: ['生成令牌', 'Make a token', '토큰 만들기'],
  tokenOnce: ['请现在复制此令牌，之后无法再次查看：', 'Copy this token now, it cannot be seen again:', '지금 토큰을 복사하세요. 다시 볼 수 없습니다:'],
  revoke: ['撤销', 'Revoke', '폐기'],
  // people
  addPerson: ['添加人员', 'Add a person', '사용자 추가'],
  changePerson: ['修改 {name}', 'Change {name}', '{name} 수정'],
  signInName: ['用户名', 'Name to sign in by', '로그인 이름'],
  personTitle: ['姓名', 'How the person is called', '표시 이름'],
  rights: ['权限范围', 'Scope', '권한 범위'],
  allDistricts: ['不勾选表示全部辖区', 'none ticked: all districts', '선택 없음: 모든 구역'],
  otherDistricts: ['其他辖区（逗号分隔）', 'Further districts, by commas', '기타 구역(쉼표로 구분)'],
  status: ['状态', 'Status', '상태'],
  active: ['可登录', 'active', '사용 중'],
  invited: ['尚未设置密码', 'has no password yet', '비밀번호 미설정'],
  disabled: ['已停用', 'disabled', '사용 중지'],
  singleSignOn: ['统一认证', 'single sign-on', '통합 로그인'],
  lastSignIn: ['上次登录', 'Last sign-in', '마지막 로그인'],
  never: ['从未', 'never', '없음'],
  edit: ['修改', 'Change', '수정'],
  disable: ['停用', 'Disable', '중지'],
  enable: ['启用', 'Enable', '사용'],
  newLink: ['新链接', 'New link', '새 링크'],
  linkFor: ['请把此链接交给 {name}。链接三天内有效，仅可使用一次：', 'Hand this link to {name}. It works once, within three days:', '이 링크를 {name} 님에게 전달하세요. 3일 안에 한 번만 쓸 수 있습니다:'],
  save: ['保存', 'Save', '저장'],
  cancel: ['取消', 'Cancel', '취소'],
  saved: ['已保存。', 'Saved.', '저장했습니다.'],
  actions: ['操作', 'Actions', '작업'],
  // audit
  who: ['人员', 'Who', '사용자'],
  what: ['操作或对象', 'What, or about whom', '작업 또는 대상'],
  from: ['从', 'From', '시작'],
  until: ['到', 'Until', '끝'],
  when: ['时间', 'When', '시각'],
  about: ['对象', 'About', '대상'],
  fromWhere: ['来源地址', 'From', '접속 주소'],
  details: ['详情', 'Details', '상세'],
  older: ['更早的记录', 'Older', '이전 기록'],
  newest: ['最新的记录', 'Newest', '최신 기록'],
  noLines: ['没有符合条件的记录。', 'No line matches.', '조건에 맞는 기록이 없습니다.'],
} satisfies Record<string, Words>

export const ROLES: Record<string, Words> = {
  viewer: ['查看员', 'Viewer', '열람자'],
  operator: ['值班员', 'Operator', '운영자'],
  dispatcher: ['派遣员', 'Dispatcher', '배정 담당'],
  department: ['部门人员', 'Department', '부서 담당'],
  administrator: ['管理员', 'Administrator', '관리자'],
}

/** What stands on the audit trail as done. */
const DONE: Record<string, Words> = {
  'signed in': ['登录', 'signed in', '로그인'],
  'signed out': ['退出', 'signed out', '로그아웃'],
  'sign-in refused': ['登录被拒', 'sign-in refused', '로그인 거부'],
  'chose a password by a link': ['通过链接设置密码', 'chose a password by a link', '링크로 비밀번호 설정'],
  'changed the password': ['修改密码', 'changed the password', '비밀번호 변경'],
  'made a link': ['生成链接', 'made a link', '링크 생성'],
  added: ['添加', 'added', '추가'],
  changed: ['修改', 'changed', '변경'],
  made: ['生成', 'made', '생성'],
  revoked: ['撤销', 'revoked', '폐기'],
  ended: ['结束', 'ended', '종료'],
}

/** The first word of what a line of the audit trail is about. */
const ABOUT: Record<string, Words> = {
  person: ['人员', 'person', '사용자'],
  session: ['登录', 'session', '로그인'],
  token: ['令牌', 'token', '토큰'],
}

export const say = (word: keyof typeof SETTINGS, values?: Record<string, string | number>): string => words.pick(SETTINGS[word], values)
export const role = (name: string): string => (ROLES[name] ? words.pick(ROLES[name]) : name)
export const done = (action: string): string => (DONE[action] ? words.pick(DONE[action]) : action)
export function about(text: string): string {
  const [first = '', ...rest] = text.split(' ')
  return [ABOUT[first] ? words.pick(ABOUT[first]) : first, ...rest].join(' ')
}
