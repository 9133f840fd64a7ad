/** The page's words in three languages; the choice is kept in the browser and changes everything at once. */
import type { Flag, Language, Severity, State, Title } from './api'
import { span } from './format'
import { PAGES } from './pages'

export const LANGUAGES: readonly Language[] = ['zh', 'en', 'ko']
export const LANGUAGE_NAMES: Record<Language, [short: string, long: string]> = {
  zh: ['中', '中文'],
  en: ['EN', 'English'],
  ko: ['한', '한국어'],
}

const WORDS = {
  town: ['城市运行', 'City operations', '도시 운영'],
  dataOld: ['数据 {age}前', 'data {age} old', '데이터 {age} 전'],
  noData: ['暂无数据', 'no data yet', '데이터 없음'],
  live: ['{n}/{all} 在线', '{n}/{all} live', '{n}/{all} 수신 중'],
  dark: ['深色', 'Dark', '어둡게'],
  light: ['浅色', 'Light', '밝게'],
  switchTheme: ['切换为{theme}主题', 'Switch to {theme} theme', '{theme} 테마로 전환'],
  signOut: ['退出', 'Sign out', '로그아웃'],
  signIn: ['登录', 'Sign in', '로그인'],
  signInHelp: ['请输入访问令牌。令牌由系统管理员发放。', 'Enter the read token. Whoever runs this server has it.', '읽기 토큰을 입력하세요. 서버 관리자가 발급합니다.'],
  cases: ['案件', 'Cases', '사건'],
  toList: ['返回列表', 'Back to the list', '목록으로'],
  openCasesOnly: ['仅显示未结', 'Only open ones', '진행 중만'],
  noCases: ['没有案件。严重告警、设备故障或人工上报会在这里成为案件。', 'No cases. A grave alert, a faulty sensor or a report becomes one here.', '사건이 없습니다. 심각한 경보, 장비 고장, 신고가 여기에 표시됩니다.'],
  chooseCase: ['从列表中选择一个案件。', 'Choose a case from the list.', '목록에서 사건을 선택하세요.'],
  reportTitle: ['市民上报', 'Report something', '시민 신고'],
  reportHelp: ['请勿填写姓名、电话等个人信息。照片中的位置和设备信息会被删除。', 'Write no names or numbers of people. Position and device are taken out of a photograph.', '이름·전화번호 등 개인정보는 쓰지 마세요. 사진의 위치·기기 정보는 삭제됩니다.'],
  reportPhoto: ['照片（可选，最多 3 张）', 'Photographs (three at most)', '사진(선택, 최대 3장)'],
  reportHere: ['附上我现在的位置', 'Add where I am now', '현재 위치 추가'],
  reportPlaced: ['已附上位置 {lat}, {lon}', 'Position added: {lat}, {lon}', '위치 추가됨: {lat}, {lon}'],
  reportPhotoPlace: ['附上照片的拍摄位置', 'Add where the photograph was taken', '사진을 찍은 위치 추가'],
  reportNowhere: ['无法获取位置，请在描述中说明地点。', 'The position is not known here. Say in words where it is.', '위치를 알 수 없습니다. 장소를 글로 적어 주세요.'],
  reportSend: ['提交', 'Send', '보내기'],
  reportThanks: ['已收到。请记下回执编号，凭它查询进展：', 'Thank you. Keep this number: it shows what becomes of your report.', '접수되었습니다. 이 번호로 진행 상황을 확인하세요:'],
  reportPhotoFailed: ['照片未能上传：{why}', 'The photograph was not taken: {why}', '사진을 올리지 못했습니다: {why}'],
  reportLook: ['查询进展', 'See what became of it', '진행 상황 보기'],
  reportClosed: ['此处不接受公众上报。', 'Reports are not taken here.', '여기서는 신고를 받지 않습니다.'],
  reportUnknown: ['没有此回执编号。', 'There is no report with this number.', '해당 번호의 신고가 없습니다.'],
  newCase: ['上报案件', 'Open a case', '사건 접수'],
  caseKind: ['类别', 'Class', '분류'],
  caseText: ['情况描述', 'What is it?', '내용'],
  caseNote: ['说明', 'Note', '설명'],
  caseHours: ['小时', 'Hours', '시간'],
  caseInto: ['并入案件编号', 'Number of the other case', '병합할 사건 번호'],
  department: ['责任部门', 'Department', '담당 부서'],
  place: ['地点', 'Place', '장소'],
  due: ['期限', 'Due', '기한'],
  receipt: ['回执编号', 'Receipt', '접수 번호'],
  history: ['办理过程', 'History', '처리 이력'],
  nothingToDo: ['您目前无需对此案件操作。', 'There is nothing for you to do here now.', '지금 하실 일이 없습니다.'],
  notForYou: ['您的角色不能执行此操作。', 'Your role may not do this.', '이 역할로는 할 수 없습니다.'],
  fromResident: ['市民', 'from the resident', '시민 제출'],
  noPhotoYet: ['尚无照片', 'no photograph yet', '아직 사진 없음'],
  fasterOne: ['他人已先操作，案件已更新。', 'Somebody was faster; the case is shown as it is now.', '다른 사람이 먼저 처리했습니다. 현재 상태를 표시합니다.'],
  caseDays: ['最近 {n} 天上报的案件', 'Cases of the last {n} days', '최근 {n}일 사건'],
  caseGoal: ['（目标 {hours}）', '(goal {hours})', '(목표 {hours})'],
  monthReport: ['{month} 月报', 'Monthly report, {month}', '{month} 월간 보고'],
  monthLink: ['月报', 'Monthly report', '월간 보고'],
  monthPrint: ['打印或存为 PDF', 'Print, or save as PDF', '인쇄 또는 PDF 저장'],
  monthSpan: ['{start} 至 {end}', '{start} to {end}', '{start} ~ {end}'],
  monthLasts: ['（本月尚未结束）', '(the month is not over)', '(이달은 아직 끝나지 않음)'],
  monthAhead: ['这个月尚未开始。', 'This month has not begun.', '아직 시작되지 않은 달입니다.'],
  monthClasses: ['按类别', 'By class', '분류별'],
  monthDistricts: ['按区域', 'By district', '구역별'],
  monthDepartments: ['按部门', 'By department', '부서별'],
  monthNoDistrict: ['无区域', 'no district', '구역 없음'],
  monthNoDepartment: ['未派遣', 'not dispatched', '미배정'],
  monthNoCases: ['本月没有案件。', 'No case was opened in this month.', '이달에 접수된 사건이 없습니다.'],
  monthByThemselves: ['其中 {n} 件在原因消除后自行结案，不计入比率与用时。', '{n} of them closed by themselves once their cause was over; they are not counted in the shares and hours.', '그중 {n}건은 원인이 해소되어 자동 종결되었으며 비율과 시간에서 제외됩니다.'],
  monthAlerts: ['告警（按传感器类型与最高等级）', 'Alerts by kind of sensor and gravest severity', '경보(센서 종류·최고 등급별)'],
  monthNoAlerts: ['本月没有告警。', 'No alert began in this month.', '이달에 시작된 경보가 없습니다.'],
  monthSensors: ['传感器可用率', 'Availability of sensors', '센서 가용률'],
  monthAvailable: ['有读数的小时所占比例，自现存最早读数起计。', 'Share of the hours with a reading, from the first reading that is kept.', '측정값이 있는 시간의 비율(보관된 첫 측정값부터).'],
  monthNumber: ['数量', 'Number', '수'],
  monthUnheard: ['没有保留本月的读数。', 'No reading of this month is kept.', '이달의 측정값이 보관되어 있지 않습니다.'],
  monthWorst: ['可用率最低的传感器', 'Heard least', '가용률이 가장 낮은 센서'],
  caseLate: ['{n} 件已超期', '{n} late', '{n}건 기한 초과'],
  caseSoon: ['{n} 件即将到期', '{n} running out', '{n}건 기한 임박'],
  name: ['用户名', 'Name', '사용자 이름'],
  password: ['密码', 'Password', '비밀번호'],
  passwordAgain: ['再次输入密码', 'Password, once more', '비밀번호 다시 입력'],
  byToken: ['使用访问令牌登录', 'Use a token instead', '토큰으로 로그인'],
  byPassword: ['使用用户名和密码登录', 'Use name and password instead', '이름과 비밀번호로 로그인'],
  wrongPassword: ['用户名或密码不正确。', 'Name and password do not belong together.', '이름 또는 비밀번호가 맞지 않습니다.'],
  tooOften: ['尝试次数过多，请稍后再试。', 'Too many wrong attempts. Wait a while, then try again.', '시도 횟수가 너무 많습니다. 잠시 후 다시 시도하세요.'],
  choosePassword: ['设置密码', 'Choose a password', '비밀번호 설정'],
  choosePasswordHelp: ['{name}，您好。请设置至少 {n} 个字符的密码。此链接仅可使用一次。', 'Welcome, {name}. Choose a password of at least {n} characters. This link works once.', '{name} 님, {n}자 이상의 비밀번호를 설정하세요. 이 링크는 한 번만 쓸 수 있습니다.'],
  weakPassword: ['此密码太容易被猜中，请换一个更长、更多样的。', 'This password is too easy to guess. Take a longer, more varied one.', '추측하기 쉬운 비밀번호입니다. 더 길고 다양하게 설정하세요.'],
  notTheSame: ['两次输入的密码不一致。', 'The two passwords differ.', '두 비밀번호가 서로 다릅니다.'],
  linkSpent: ['此链接已被使用或已过期，请向管理员索取新的链接。', 'This link has been used or is too old. Ask an administrator for a new one.', '이미 사용되었거나 만료된 링크입니다. 관리자에게 새 링크를 요청하세요.'],
  bySingleSignOn: ['使用{title}登录', 'Sign in by {title}', '{title}(으)로 로그인'],
  sso_unreachable: ['统一认证服务没有应答。请稍后再试，或使用用户名和密码登录。', 'The single sign-on does not answer. Try again later, or sign in by name and password.', '통합 로그인 서버가 응답하지 않습니다. 나중에 다시 시도하거나 이름과 비밀번호로 로그인하세요.'],
  sso_failed: ['统一认证没有确认您的身份，请重试。', 'The single sign-on did not vouch for you. Try again.', '통합 로그인이 신원을 확인하지 않았습니다. 다시 시도하세요.'],
  sso_late: ['登录耗时过长，请重新开始。', 'That took too long, or began in another browser. Begin again.', '시간이 너무 오래 걸렸거나 다른 브라우저에서 시작했습니다. 다시 시작하세요.'],
  'sso_no-role': ['您的统一认证账户没有此系统的权限，请联系管理员。', 'Your account has no right to be here. Ask an administrator.', '이 계정에는 권한이 없습니다. 관리자에게 문의하세요.'],
  sso_taken: ['已有同名的本地账户，请联系管理员。', 'There is a local account of your name already. Ask an administrator.', '같은 이름의 로컬 계정이 이미 있습니다. 관리자에게 문의하세요.'],
  sso_disabled: ['您的账户已停用，请联系管理员。', 'Your account is disabled. Ask an administrator.', '사용이 중지된 계정입니다. 관리자에게 문의하세요.'],
  token: ['访问令牌', 'Token', '토큰'],
  wrongToken: ['令牌不正确，请检查后重试。', 'This token is not accepted. Check it and try again.', '토큰이 맞지 않습니다. 확인 후 다시 시도하세요.'],
  unreachable: ['服务器没有应答。', 'The server does not answer.', '서버가 응답하지 않습니다.'],
  lost: ['{since}起连接中断，数据停在当时', 'Connection lost since {since}; data stands as it was', '{since}부터 연결 끊김, 당시 데이터 표시 중'],
  retryIn: ['{n} 秒后重试', 'next try in {n} s', '{n}초 후 재시도'],
  retrying: ['正在重试', 'trying now', '재시도 중'],
  retryNow: ['立即重试', 'Try now', '지금 재시도'],
  environment: ['环境', 'Environment', '환경'],
  map: ['地图', 'Map', '지도'],
  events: ['实时事件', 'Live events', '실시간 이벤트'],
  eventsTab: ['事件', 'Events', '이벤트'],
  sensors: ['传感器', 'Sensors', '센서'],
  summary: ['概况', 'Summary', '요약'],
  worstRoads: ['最堵道路', 'Worst roads', '가장 막히는 도로'],
  parkingLeft: ['剩余车位', 'Parking left', '남은 주차면'],
  fleet: ['网关', 'Gateways', '게이트웨이'],
  alive: ['{n}/{all} 在线', '{n}/{all} alive', '{n}/{all} 작동 중'],
  backlog: ['待传 {n}', 'backlog {n}', '대기 {n}'],
  queued: ['待传', 'queued', '대기'],
  delivered: ['已送达', 'delivered', '전달'],
  quarantined: ['已隔离', 'quarantined', '격리'],
  dead: ['死信', 'dead letters', '데드레터'],
  open: ['进行中 {n}', '{n} open', '진행 중 {n}'],
  over: ['已结束', 'ended', '종료'],
  onTime: ['按期结案', 'on time', '기한 내 종결'],
  hoursPerCase: ['每案用时', 'per case', '건당'],
  lastDays: ['近 {n} 天', '{n} days', '최근 {n}일'],
  withdrawn: ['已撤销', 'withdrawn', '철회'],
  withdrawnWhy: ['不是事件，而是传感器的问题（{why}）', 'no event but the sensor ({why})', '사건이 아닌 센서 문제({why})'],
  maintenance: ['维护', 'Maintenance', '정비'],
  declare: ['开始维护', 'Begin maintenance', '정비 시작'],
  endMaintenance: ['结束维护', 'End maintenance', '정비 종료'],
  quietMeanwhile: ['期间不产生告警', 'It raises no alerts meanwhile', '그동안 경보 없음'],
  inMaintenance: ['维护中', 'In maintenance', '점검 중'],
  untilTime: ['至 {time}', 'until {time}', '{time}까지'],
  caseNumber: ['案件 {n}', 'case {n}', '사건 {n}'],
  since: ['持续 {age}', 'for {age}', '{age}째'],
  ended: ['{age}前结束', 'ended {age} ago', '{age} 전 종료'],
  ago: ['{age}前', '{age} ago', '{age} 전'],
  above: ['高于 {limit}', 'over {limit}', '{limit} 초과'],
  below: ['低于 {limit}', 'under {limit}', '{limit} 미만'],
  noEvents: ['一切平静。数值越过界限时，事件会出现在这里。', 'All calm. A value over its limit appears here.', '이상 없음. 한계를 넘는 값이 여기에 표시됩니다.'],
  acknowledge: ['确认', 'Acknowledge', '확인'],
  acknowledgedBy: ['{by} 已确认', 'acknowledged by {by}', '{by} 확인함'],
  yourName: ['您的姓名', 'Your name', '이름'],
  notDone: ['未能确认：{why}', 'Not acknowledged: {why}', '확인하지 못함: {why}'],
  fromWind: ['上风向 {compass}（{start}°–{end}°，{speed} m/s）', 'upwind {compass} ({start}°–{end}°, {speed} m/s)', '풍상측 {compass} ({start}°–{end}°, {speed} m/s)'],
  calmAir: ['静风，来向不明', 'calm air, no direction', '무풍, 방향 불명'],
  likely: ['可能来源', 'likely sources', '추정 오염원'],
  noSource: ['上风向无已登记的污染源', 'no declared source upwind', '풍상측에 등록된 오염원 없음'],
  upstream: ['上游', 'upstream', '상류'],
  eventsOf: ['{n} 个事件', '{n} events', '이벤트 {n}건'],
  oneEvent: ['1 个事件', '1 event', '이벤트 1건'],
  andMore: ['等 {n} 处', '+{n}', '외 {n}곳'],
  silence: ['失联', 'Silence', '신호 끊김'],
  undeclared: ['此设备尚未登记，其读数暂存，不作判断。要接入它，请将以下内容写入网关的设备文件并重启网关：', 'Nobody has declared this device: its readings are held, and not judged. To accept it, put this into the gateway\'s file of devices and start the gateway anew:', '등록되지 않은 기기입니다. 값은 보류되며 판정되지 않습니다. 등록하려면 다음을 게이트웨이의 기기 파일에 넣고 다시 시작하세요:'],
  copy: ['复制', 'Copy', '복사'],
  copied: ['已复制', 'Copied', '복사됨'],
  noSensors: ['还没有传感器。网关写入第一个读数后即会出现。', 'No sensor yet. Each appears here once a gateway has written its first reading.', '센서가 없습니다. 게이트웨이가 첫 값을 쓰면 표시됩니다.'],
  noMatch: ['没有符合条件的传感器。', 'No sensor matches.', '조건에 맞는 센서가 없습니다.'],
  noGateways: ['还没有网关报告状态。', 'No gateway has reported yet.', '상태를 보고한 게이트웨이가 없습니다.'],
  nothingHere: ['这类传感器尚无读数。', 'No readings of this kind yet.', '이 종류의 측정값이 없습니다.'],
  clear: ['清除筛选', 'Clear filters', '필터 지우기'],
  search: ['按地点或编号搜索', 'Search place or id', '장소 또는 번호 검색'],
  allKinds: ['全部类型', 'All kinds', '모든 종류'],
  allStates: ['全部状态', 'All states', '모든 상태'],
  ofAll: ['{n}/{all}', '{n} of {all}', '{n}/{all}'],
  showAll: ['显示全部 {n} 个', 'Show all {n}', '{n}개 모두 보기'],
  kind: ['类型', 'Kind', '종류'],
  state: ['状态', 'State', '상태'],
  layers: ['图层', 'Layers', '레이어'],
  legend: ['图例', 'Legend', '범례'],
  byGrade: ['颜色表示等级', 'in the colour of its grade', '등급 색상'],
  cluster: ['相近的正常传感器数', 'calm sensors that lie close together', '가까이 있는 정상 센서 수'],
  windTo: ['风的去向', 'where the wind blows to', '바람이 부는 방향'],
  zoomIn: ['放大', 'Zoom in', '확대'],
  zoomOut: ['缩小', 'Zoom out', '축소'],
  fit: ['显示全部', 'Show all', '전체 보기'],
  noMap: ['此浏览器无法显示地图（需要 WebGL）。传感器列表仍可使用。', 'This browser cannot draw the map (it needs WebGL). The sensor list works without it.', '이 브라우저는 지도를 표시할 수 없습니다(WebGL 필요). 센서 목록은 사용할 수 있습니다.'],
  unplaced: ['{n} 个传感器没有位置', 'Without a position: {n}', '위치 없는 센서 {n}개'],
  close: ['关闭', 'Close', '닫기'],
  noPoints: ['这段时间没有读数。', 'No readings in this time.', '이 기간에 측정값이 없습니다.'],
  loading: ['加载中', 'Loading', '불러오는 중'],
  failedLoad: ['无法加载：{why}', 'Could not load: {why}', '불러오지 못함: {why}'],
  quantities: ['测量项', 'Quantities', '측정 항목'],
  range: ['时间范围', 'Time range', '기간'],
  keptOut: ['被隔离的读数', 'Kept out by quality control', '품질 관리로 격리된 값'],
  readings: ['每 {interval} 一次', 'every {interval}', '{interval}마다'],
  skip: ['跳到内容', 'Skip to the content', '본문으로 건너뛰기'],
  language: ['语言', 'Language', '언어'],
  airQuality: ['空气质量', 'Air quality', '대기질'],
  whichIndex: ['空气质量指数标准', 'Air quality index by', '대기질 지수 기준'],
  lastHour: ['最近 1 小时', 'last hour', '최근 1시간'],
  lastDay: ['24 小时', '24 h', '24시간'],
  hoursSoFar: ['{n}/24 小时', '{n} of 24 h', '24시간 중 {n}'],
  tooFew: ['数据不足', 'too few data', '자료 부족'],
  provisional: ['暂定', 'provisional', '잠정'],
  provisionalWhy: ['最近 1 小时的读数少于标准要求', 'fewer readings in the last hour than the standard asks for', '최근 1시간 측정값이 기준보다 적음'],
  leads: ['首要 {names}', 'led by {names}', '주요 {names}'],
  waterClass: ['水质类别', 'Water class', '수질 등급'],
  worstFactor: ['最差 {names}', 'worst {names}', '최악 {names}'],
  overTarget: ['劣于目标 {target}', 'below target {target}', '목표 {target} 미달'],
  noiseLimits: ['噪声限值', 'Noise limits', '소음 기준'],
  metersOver: ['{all} 个测点，{n} 个超标', '{n} of {all} over', '{all}곳 중 {n}곳 초과'],
  ofLimit: ['限值', 'limit', '기준'],
  overLimit: ['超标', 'over', '초과'],
  daytime: ['昼', 'day', '낮'],
  nighttime: ['夜', 'night', '밤'],
  congestion: ['拥堵指数', 'Congestion index', '혼잡 지수'],
  ofTen: ['/ 10', 'of 10', '/ 10'],
  noVehicles: ['无车辆', 'no vehicles', '차량 없음'],
  limit: ['{severity}界限', '{severity} limit', '{severity} 한계'],
  ...PAGES,
} satisfies Record<string, [string, string, string]>

export type Word = keyof typeof WORDS

const SEVERITY: Record<Severity | 'none', [string, string, string]> = {
  blue: ['蓝色', 'blue', '파랑'],
  yellow: ['黄色', 'yellow', '노랑'],
  orange: ['橙色', 'orange', '주황'],
  red: ['红色', 'red', '빨강'],
  none: ['已恢复', 'over', '해제'],
}
const STATE: Record<State, [string, string, string]> = {
  fresh: ['在线', 'live', '수신 중'],
  stale: ['延迟', 'stale', '지연'],
  silent: ['失联', 'silent', '끊김'],
}
const FLAG: Record<Flag, [string, string, string]> = {
  1: ['正常', 'good', '정상'],
  2: ['未评估', 'not checked', '미평가'],
  3: ['可疑', 'suspect', '의심'],
  4: ['不合格', 'failed', '불합격'],
  9: ['缺失', 'missing', '결측'],
}
const REASON: Record<string, [string, string, string]> = {
  gross_range: ['超出量程', 'outside the gross range', '측정 범위 벗어남'],
  suspect_range: ['超出可信范围', 'outside the operator range', '신뢰 범위 벗어남'],
  flat_line: ['数值卡住不变', 'value does not move', '값이 고정됨'],
  rate_of_change: ['变化过快', 'changes too fast', '변화가 너무 빠름'],
  future: ['时间在未来', 'time in the future', '미래 시각'],
  out_of_order: ['迟到的读数', 'out of order', '순서가 뒤바뀜'],
  duplicate_time: ['同一时间有两个读数', 'two values for one time', '같은 시각에 두 값'],
  missing: ['缺失', 'missing', '결측'],
  no_time: ['无时间，以到达时间计', 'no time of its own', '시각 없음, 도착 시각 사용'],
  clock: ['时间为估计值', 'time is an estimate', '추정된 시각'],
  past: ['时钟从未校准', 'clock was never set', '시계가 설정되지 않음'],
  spike: ['突跳', 'spike', '순간 튐'],
  attenuated: ['波动过小', 'hardly varies', '변동이 너무 작음'],
  climatology: ['与季节、时刻不符', 'not usual at this time', '이 시기에 이례적'],
  gap: ['中断后的第一个读数', 'first after a gap', '공백 뒤 첫 값'],
  contradiction: ['各量互相矛盾', 'contradicts other quantities', '다른 값과 모순'],
  diagnostics: ['传感器自报异常', 'the sensor is not well', '센서 자체 이상'],
  unusual: ['异常', 'unusual', '이례적'],
  maintenance: ['维护中', 'in maintenance', '점검 중'],
  fault_spike: ['故障：突跳', 'fault: spike', '고장: 순간 튐'],
  sender_suspect: ['设备标记为存疑', 'doubted by the sender', '기기가 의심으로 표시'],
  over_range: ['设备标记为超量程', 'over range, says the sender', '기기가 범위 초과로 표시'],
  sender_bad: ['设备标记为无效', 'wrong, says the sender', '기기가 무효로 표시'],
  stuck: ['故障：数值卡死', 'fault: stuck', '고장: 값 고정'],
  drift: ['故障：漂移', 'fault: drift', '고장: 드리프트'],
  offset: ['故障：偏移', 'fault: offset', '고장: 오프셋'],
  noise: ['故障：噪声', 'fault: noise', '고장: 잡음'],
  dropout: ['故障：掉数', 'fault: dropout', '고장: 값 끊김'],
  unit: ['故障：单位错误', 'fault: wrong unit', '고장: 단위 오류'],
  skew: ['故障：时钟错误', 'fault: wrong clock', '고장: 시계 오류'],
}
/** Units that are words; the others are the same in every language. */
const WORD_UNITS: Partial<Record<string, [string, string, string]>> = {
  '1': ['', '', ''],
  places: ['个', 'places', '면'],
  'veh/h': ['辆/时', 'veh/h', '대/h'],
}
const UNITS: Record<'second' | 'minute' | 'hour' | 'day', [string, string, string]> = {
  second: ['{n} 秒', '{n} s', '{n}초'],
  minute: ['{n} 分钟', '{n} min', '{n}분'],
  hour: ['{n} 小时', '{n} h', '{n}시간'],
  day: ['{n} 天', '{n} d', '{n}일'],
}
export const COMPASS: Record<Language, readonly string[]> = {
  zh: ['北', '东北', '东', '东南', '南', '西南', '西', '西北'],
  en: ['N', 'NE', 'E', 'SE', 'S', 'SW', 'W', 'NW'],
  ko: ['북', '북동', '동', '남동', '남', '남서', '서', '북서'],
}
const LOCALE: Record<Language, string> = { zh: 'zh-CN', en: 'en-GB', ko: 'ko-KR' }

function chosen(): Language {
  const kept = localStorage.getItem('citygate.language') ?? navigator.language.slice(0, 2)
  return LANGUAGES.find((code) => code === kept) ?? 'en'
}

class Words {
  language = $state<Language>(chosen())

  choose(language: Language): void {
    this.language = language
    localStorage.setItem('citygate.language', language)
  }

  pick(words: [string, string, string], values: Record<string, string | number> = {}): string {
    const text = words[LANGUAGES.indexOf(this.language)] ?? words[1]
    return text.replace(/\{(\w+)\}/g, (_, key: string) => String(values[key] ?? ''))
  }

  t = (word: Word, values?: Record<string, string | number>): string => this.pick(WORDS[word], values)
  severity = (value: Severity | 'none'): string => this.pick(SEVERITY[value])
  unit = (unit: string | undefined): string => this.pick(WORD_UNITS[unit ?? ''] ?? [unit ?? '', unit ?? '', unit ?? ''])
  state = (value: State): string => this.pick(STATE[value])
  flag = (value: Flag): string => this.pick(FLAG[value])
  title = (title: Title | null | undefined, otherwise: string): string => title?.[this.language] || title?.en || otherwise
  /** The reasons of a flag in words; several are joined by a plus. */
  reason = (codes: string): string =>
    codes
      .split('+')
      .map((code) => (REASON[code] ? this.pick(REASON[code]) : code.replaceAll('_', ' ')))
      .join(this.language === 'zh' ? '，' : ', ')
  age = (seconds: number): string => {
    if (!Number.isFinite(seconds)) return '–'
    const { n, unit } = span(seconds)
    return this.pick(UNITS[unit], { n })
  }
  exact = (time: string | number): string =>
    new Date(time).toLocaleString(LOCALE[this.language], { dateStyle: 'medium', timeStyle: 'medium', hourCycle: 'h23' })
  /** A month such as 2026-11. */
  month = (month: string): string => new Date(`${month}-15T12:00`).toLocaleDateString(LOCALE[this.language], { year: 'numeric', month: 'long' })
  day = (date: Date): string =>
    date.toLocaleDateString(LOCALE[this.language], { weekday: 'short', day: 'numeric', month: 'short' })
  clock = (time: Date | number): string =>
    new Date(time).toLocaleTimeString('en-GB', { hour: '2-digit', minute: '2-digit', second: '2-digit' })
}

export const words = new Words()
