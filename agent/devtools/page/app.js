// The page of /devtools. Everything that was captured is shown by textContent: it is text, whatever it says.
'use strict';

const ROWS_MAX = 100_000;
const ROW = 26;
const SECONDS = 120;
const BODY_SHOWN = 512 * 1024;
const $ = (id) => document.getElementById(id);

const COLUMNS = [
  ['Time', (r) => clock(r.start)],
  ['Method', (r) => r.method],
  ['Status', (r) => r.phase === 'started' ? '…' : status(r), 'number'],
  ['Host', (r) => r.host],
  ['Path', (r) => r.service ? `${r.service}/${r.path.split('/').pop()}` : target(r)],
  ['Process', (r) => r.process ? `${r.process.split('/').pop()} ${r.pid}` : r.pid || ''],
  ['Container', (r) => r.pod || r.container || ''],
  ['Type', (r) => r.dialect || (r.response_type || '').split(';')[0]],
  ['Size', (r) => size(r.response_size), 'number'],
  ['Duration', (r) => r.phase === 'started' ? '' : time(r.duration), 'number'],
  ['Waterfall', null, 'fall'],
];

// What was received, oldest first, and the places of those that are listed.
let all = [];
let listed = [];
let lasting = new Map();
let dropped = 0, passedOver = 0, behind = 0;
let instance = null, lastSeq = -1;
let chosen = null, following = true, paused = false, waiting = [];
let words = [], classes = new Set(), expression = '';
let stream = null;

// ---- texts

const two = (n) => String(n).padStart(2, '0');
const clock = (ms) => { const d = new Date(ms); return `${two(d.getHours())}:${two(d.getMinutes())}:${two(d.getSeconds())}.${String(d.getMilliseconds()).padStart(3, '0')}`; };
const time = (ms) => ms < 1 ? `${ms.toFixed(2)} ms` : ms < 1000 ? `${ms.toFixed(ms < 10 ? 1 : 0)} ms` : `${(ms / 1000).toFixed(ms < 10_000 ? 2 : 1)} s`;
const size = (n) => n < 1024 ? `${n} B` : n < 1 << 20 ? `${(n / 1024).toFixed(1)} KiB` : n < 1 << 30 ? `${(n / (1 << 20)).toFixed(1)} MiB` : `${(n / (1 << 30)).toFixed(2)} GiB`;
const status = (r) => r.grpc_status != null && r.status === 200 ? `200/${r.grpc_status}` : String(r.status);
const failed = (r) => r.status >= 400 || r.damage > 0 || r.grpc_status > 0;
const target = (r) => { const at = r.url.indexOf('?'); return at < 0 ? r.path : r.path + r.url.slice(at); };

function node(tag, attributes, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) made.setAttribute(name, value);
  for (const child of children) made.append(child instanceof Node ? child : document.createTextNode(child ?? ''));
  return made;
}

// ---- the stream

const token = () => sessionStorage.getItem('token');
const headers = () => token() ? { Authorization: `Bearer ${token()}` } : {};

async function ask(path, options = {}) {
  const answer = await fetch(`/devtools/api/${path}`, { ...options, headers: { ...headers(), ...options.headers }, cache: 'no-store' });
  if (answer.status === 401) { await login(); return ask(path, options); }
  return answer;
}

function login() {
  const dialog = $('login');
  if (token()) $('login-fault').textContent = 'That was not the token.';
  if (!dialog.open) dialog.showModal();
  return new Promise((done) => dialog.addEventListener('close', () => {
    sessionStorage.setItem('token', $('token').value.trim());
    done();
  }, { once: true }));
}

async function connect() {
  let pause = 500;
  for (;;) {
    stream = new AbortController();
    const mine = stream;
    try {
      const answer = await ask(`events?expr=${encodeURIComponent(expression)}`, { signal: mine.signal });
      if (!answer.ok) {
        const why = (await answer.text()).trim();
        if (answer.status === 400) { $('fault').textContent = why; expression = ''; continue; }
        throw new Error(why);
      }
      pause = 500;
      state(paused ? 'paused' : 'live');
      await read(answer.body.getReader());
      throw new Error('the agent has ended');
    } catch (error) {
      if (mine.signal.aborted) { pause = 0; } else { state('gone', error.message); pause = Math.min(pause * 2, 10_000); }
      await new Promise((done) => setTimeout(done, pause));
    }
  }
}

async function read(reader) {
  const decoder = new TextDecoder();
  let rest = '';
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    rest += decoder.decode(value, { stream: true });
    const parts = rest.split('\n\n');
    rest = parts.pop();
    for (const part of parts) event(part);
  }
}

function event(text) {
  let name = '', data = '';
  for (const line of text.split('\n')) {
    if (line.startsWith('event: ')) name = line.slice(7);
    else if (line.startsWith('data: ')) data += line.slice(6);
  }
  if (!data) return;
  const said = JSON.parse(data);
  if (name === 'request.http_transaction') {
    if (said.seq > lastSeq) { lastSeq = said.seq; paused ? hold(said) : add(said); measure(said); }
  } else if (name === 'system.connected') {
    const now = `${said.host} ${said.pid}`;
    if (instance !== null && instance !== now) reset();
    instance = now;
    passedOver = said.passed_over;
    $('host').textContent = said.host;
    document.title = `Ringtap ${said.host}`;
  } else if (name === 'system.lost') {
    behind += said.behind;
    passedOver = said.passed_over;
  }
  draw();
}

function state(name, why) {
  document.body.dataset.state = name;
  $('state-text').textContent = { live: 'live', paused: 'paused', gone: `no connection: ${why}` }[name];
}

// ---- rows

function hold(row) {
  if (waiting.length >= ROWS_MAX) { waiting.shift(); dropped++; }
  waiting.push(row);
}

function add(row) {
  const before = lasting.get(row.id);
  if (before) {
    Object.assign(before, row);
    if (row.phase !== 'started') lasting.delete(row.id);
    return;
  }
  if (row.phase === 'started') lasting.set(row.id, row);
  row.text = `${row.method} ${status(row)} ${row.url} ${row.host} ${row.process || ''} ${row.pid} ${row.container || ''} ${row.pod || ''} ${row.response_type || ''} ${row.service || ''}`.toLowerCase();
  all.push(row);
  if (wanted(row)) listed.push(row);
  if (all.length > ROWS_MAX + ROWS_MAX / 10) {
    const gone = new Set(all.splice(0, all.length - ROWS_MAX));
    dropped += gone.size;
    listed = listed.filter((row) => !gone.has(row));
  }
}

function wanted(row) {
  if (classes.size && !(classes.has(String(row.status)[0]) || (classes.has('damaged') && row.damage > 0))) return false;
  return words.every((word) => row.text.includes(word));
}

function list() {
  listed = all.filter(wanted);
  draw();
}

function reset() {
  all = []; listed = []; waiting = []; lasting.clear();
  dropped = behind = 0; lastSeq = -1;
  buckets.clear();
  draw();
}

// ---- the list

const pool = [];
let drawing = false;
function draw() {
  if (drawing) return;
  drawing = true;
  requestAnimationFrame(() => { drawing = false; paint(); });
}

function paint() {
  const scroll = $('scroll');
  $('space').style.height = `${listed.length * ROW}px`;
  $('head').style.paddingRight = `${6 + scroll.offsetWidth - scroll.clientWidth}px`;
  if (following) scroll.scrollTop = listed.length * ROW;
  const first = Math.max(0, Math.floor(scroll.scrollTop / ROW) - 2);
  const shown = listed.slice(first, first + Math.ceil(scroll.clientHeight / ROW) + 4);
  $('rows').style.transform = `translateY(${first * ROW}px)`;
  const from = Math.min(...shown.map((r) => r.start)), to = Math.max(...shown.map((r) => r.start + r.duration));
  shown.forEach((row, at) => fill(at, row, first + at, from, Math.max(to - from, 0.001)));
  for (let at = shown.length; at < pool.length; at++) pool[at].hidden = true;
  const grid = $('grid');
  grid.setAttribute('aria-rowcount', listed.length + 1);
  const active = pool.find((made) => !made.hidden && made.row === chosen);
  active ? grid.setAttribute('aria-activedescendant', active.id) : grid.removeAttribute('aria-activedescendant');
  const notes = [`${listed.length.toLocaleString()} of ${all.length.toLocaleString()}`];
  if (paused && waiting.length) notes.push(`${waiting.length.toLocaleString()} wait`);
  if (dropped) notes.push(`${dropped.toLocaleString()} older ones dropped here`);
  if (passedOver) notes.push(`${passedOver.toLocaleString()} not shown: too many in a second`);
  if (behind) notes.push(`${behind.toLocaleString()} missed: this page was too slow`);
  $('counts').textContent = notes.join(' · ');
  $('empty').textContent = listed.length ? '' : all.length ? 'Nothing matches the filter.'
    : 'No transactions yet. Make a request on this machine: curl https://example.com';
}

function fill(at, row, index, from, span) {
  if (!pool[at]) {
    const made = node('div', { role: 'row', id: `row-${at}` });
    for (const [, , kind] of COLUMNS) {
      const cell = node('div', { role: 'gridcell' });
      if (kind) cell.className = kind;
      if (kind === 'fall') cell.append(node('i'), node('i'));
      made.append(cell);
    }
    made.addEventListener('mousedown', () => { choose(made.row); $('grid').focus(); });
    made.addEventListener('dblclick', () => open());
    made.addEventListener('click', () => open());
    $('rows').append(made);
    pool[at] = made;
  }
  const made = pool[at];
  made.hidden = false;
  made.row = row;
  made.setAttribute('aria-rowindex', index + 2);
  made.setAttribute('aria-selected', row === chosen);
  COLUMNS.forEach(([, text], column) => {
    const cell = made.children[column];
    if (text) {
      const now = String(text(row));
      if (cell.textContent !== now) { cell.textContent = now; cell.title = column === 4 ? row.url : column === 5 ? row.process || '' : now; }
    } else {
      const [wait, load] = cell.children;
      const waited = row.first_byte ?? row.duration;
      wait.style.left = `${(row.start - from) / span * 100}%`;
      wait.style.width = `${waited / span * 100}%`;
      load.style.left = `${(row.start + waited - from) / span * 100}%`;
      load.style.width = `${Math.max(0, row.duration - waited) / span * 100}%`;
      cell.setAttribute('aria-label', `began ${time(row.start - from)} after the first of these`);
    }
  });
  made.children[2].className = `number s${String(row.status)[0]}${row.damage ? ' damaged' : ''}`;
  made.children[2].title = row.damage ? `${row.damage} ranges are missing` : '';
}

function choose(row) {
  chosen = row;
  following = false;
  const at = listed.indexOf(row), scroll = $('scroll');
  if (at >= 0) {
    if (at * ROW < scroll.scrollTop) scroll.scrollTop = at * ROW;
    if ((at + 1) * ROW > scroll.scrollTop + scroll.clientHeight) scroll.scrollTop = (at + 1) * ROW - scroll.clientHeight;
  }
  draw();
}

function move(by) {
  if (!listed.length) return;
  const at = chosen ? listed.indexOf(chosen) : listed.length;
  choose(listed[Math.max(0, Math.min(listed.length - 1, at + by))]);
  if (!$('detail').hidden) open();
}

// ---- one of them

const TABS = ['Overview', 'Headers', 'Request', 'Response', 'Messages', 'Timing', 'Raw'];
let tab = 'Overview', detail = null;

async function open() {
  const row = chosen;
  if (!row) return;
  $('detail').hidden = false;
  $('detail-title').textContent = `${row.method} ${row.url}`;
  detail = null;
  show();
  draw();
  const answer = await ask(`transactions/${encodeURIComponent(row.id)}`);
  const said = answer.ok ? await answer.json() : { gone: (await answer.text()).trim() };
  if (chosen === row) { detail = said; show(); }
}

function close() {
  $('detail').hidden = true;
  $('grid').focus();
  draw();
}

function show() {
  $('tabs').replaceChildren(...TABS.map((name) => {
    const made = node('button', { type: 'button', role: 'tab', id: `tab-${name}`, 'aria-controls': 'panel', 'aria-selected': name === tab, tabindex: name === tab ? 0 : -1 }, name);
    made.addEventListener('click', () => { tab = name; show(); });
    return made;
  }));
  $('panel').setAttribute('aria-labelledby', `tab-${tab}`);
  $('panel').replaceChildren(...parts[tab](chosen, detail || {}));
}

function facts(pairs) {
  const made = node('dl');
  for (const [name, value, kind] of pairs) {
    if (value == null || value === '') continue;
    made.append(node('dt', {}, name), node('dd', kind ? { class: kind } : {}, String(value)));
  }
  return made;
}

const parts = {
  Overview: (r, d) => [
    facts([
      ['URL', r.url], ['Method', r.method], ['Status', status(r), failed(r) ? 'warn' : 's2'], ['Protocol', [r.protocol, r.dialect].filter(Boolean).join(', ')],
      ['gRPC', r.service && `${r.service}: ${d.grpc_status_name || (r.grpc_status ?? '')} ${d.grpc_message || ''}`],
      ['Direction', r.direction], ['Process', r.process && `${r.process} (${r.pid})`], ['User', r.user], ['Container', r.container],
      ['Image', d.metadata?.container_image], ['Pod', r.pod && [d.metadata?.pod_namespace, r.pod].filter(Boolean).join('/')],
      ['From', r.source], ['To', r.destination], ['Read at', r.tls ? `${r.tls}, before it was encrypted` : 'the socket'],
      ['Connection', r.connection], ['Socket', r.socket !== 'exact' && `${r.socket}: found from how the process uses it`],
      ['Request id', r.id], ['Request body', size(r.request_size)], ['Response body', size(r.response_size)],
      ['Tags', (d.metadata?.tags || []).join(', ')],
    ]),
    ...(d.damage?.length ? [node('h3', {}, 'Missing'), ...d.damage.map((x) => node('p', { class: 'warn' }, `${x.cause}: bytes ${x.start} to ${x.end} of the ${x.part}`))] : []),
    ...(r.request_cut ? [node('p', { class: 'note' }, `The request's body is cut: ${r.request_cut}.`)] : []),
    ...(r.response_cut ? [node('p', { class: 'note' }, `The response's body is cut: ${r.response_cut}.`)] : []),
    ...(d.gone ? [node('p', { class: 'note' }, d.gone)] : []),
  ],
  Headers: (r, d) => [fields('Request', d.request), fields('Response', d.response)].flat(),
  Request: (r, d) => body(d.request, d),
  Response: (r, d) => body(d.response, d),
  Messages: (r, d) => messages(d),
  Timing: (r) => {
    const waited = r.first_byte ?? r.duration, bar = node('div', { class: 'bar' }, node('i'), node('i'));
    bar.children[0].style.width = `${waited / (r.duration || 1) * 100}%`;
    bar.children[1].style.left = bar.children[0].style.width;
    bar.children[1].style.right = '0';
    return [bar, facts([
      ['Began', r.time], ['First byte of the response', r.first_byte == null ? 'not seen' : `after ${time(r.first_byte)}`],
      ['Last byte', r.phase === 'started' ? 'still lasts' : `after ${time(r.duration)}`],
      ['Response took', r.first_byte == null ? null : time(r.duration - r.first_byte)],
    ]), node('p', { class: 'note' }, 'As the kernel saw it in this process: name lookup and connecting are not part of it.')];
  },
  Raw: (r, d) => [node('pre', {}, JSON.stringify(d, null, 2).slice(0, BODY_SHOWN))],
};

function fields(title, side) {
  const headers = Object.entries(side?.headers || {});
  const lines = headers.flatMap(([name, value]) => (side.header_list?.[name] || [value]).map((one) => [name, one]));
  return [node('h3', {}, title), lines.length ? facts(lines) : node('p', { class: 'note' }, 'None was captured.')];
}

function bytes(side) {
  if (!side?.body) return null;
  const text = atob(side.body), made = new Uint8Array(text.length);
  for (let at = 0; at < text.length; at++) made[at] = text.charCodeAt(at);
  return made;
}

// Text, prettier if it is JSON; a table of bytes if it is no text.
function readable(raw) {
  const part = raw.subarray(0, BODY_SHOWN);
  let text;
  try {
    text = new TextDecoder('utf-8', { fatal: part.length === raw.length }).decode(part);
  } catch { text = null; }
  if (text === null || /[\u0000-\u0008\u000e-\u001a]/.test(text.slice(0, 4096))) return dump(part.subarray(0, 4096));
  const begins = text.trimStart()[0];
  if (part.length === raw.length && (begins === '{' || begins === '[')) {
    try { return JSON.stringify(JSON.parse(text), null, 2); } catch { /* as it is */ }
  }
  return text;
}

function dump(raw) {
  const lines = [];
  for (let at = 0; at < raw.length; at += 16) {
    const part = [...raw.subarray(at, at + 16)];
    const hex = part.map((b) => b.toString(16).padStart(2, '0')).join(' ');
    lines.push(`${at.toString(16).padStart(6, '0')}  ${hex.padEnd(47)}  ${part.map((b) => b > 31 && b < 127 ? String.fromCharCode(b) : '·').join('')}`);
  }
  return lines.join('\n');
}

function body(side, d) {
  if (d.gone) return [node('p', { class: 'note' }, d.gone)];
  const raw = bytes(side);
  const about = facts([
    ['Type', side?.content_type], ['Size', side?.body_size != null ? size(side.body_size) : null], ['Decoded', side?.body_decoded],
    ['Cut', side?.truncated, 'warn'], ['SHA-256', side?.body_sha256],
  ]);
  if (!raw) return [about, node('p', { class: 'note' }, side?.truncated ? 'Nothing was kept.' : 'There is no body.')];
  const notes = raw.length > BODY_SHOWN ? [node('p', { class: 'note' }, `The first ${size(BODY_SHOWN)} of ${size(raw.length)}.`)] : [];
  return [about, ...notes, node('pre', {}, readable(raw))];
}

function messages(d) {
  const of = (side, who) => {
    const raw = bytes(side) || new Uint8Array();
    return (side?.messages?.list || []).map((m) => ({ ...m, who, text: m.length ? readable(raw.subarray(m.start, m.start + m.length)) : '' }));
  };
  const both = [...of(d.request, 'request'), ...of(d.response, 'response')].sort((a, b) => a.time < b.time ? -1 : 1).slice(0, 500);
  if (!both.length) return [node('p', { class: 'note' }, 'This exchange has no messages: it is neither gRPC, WebSocket nor an event stream, or they were not kept.')];
  const count = (d.request?.messages?.count || 0) + (d.response?.messages?.count || 0);
  return [node('p', { class: 'note' }, `${both.length} of ${count} messages`), ...both.map((m) => node('div', { class: m.who === 'response' ? 'message answer' : 'message' },
    node('div', { class: 'note' }, `${m.who === 'response' ? '←' : '→'} ${m.time.slice(11, 26)} ${m.kind}, ${size(m.size)}${m.compressed ? ', compressed' : ''}`), node('pre', {}, m.text)))];
}

async function save(rows, name) {
  const answer = await ask('har', { method: 'POST', body: JSON.stringify(rows.slice(-10_000).map((r) => r.id)) });
  if (!answer.ok) { $('fault').textContent = (await answer.text()).trim(); return; }
  const link = node('a', { href: URL.createObjectURL(await answer.blob()), download: name });
  link.click();
  URL.revokeObjectURL(link.href);
}

// ---- plots

const buckets = new Map();
const plots = [];

function measure(row) {
  if (row.phase === 'started') return;
  const second = Math.floor((row.start + row.duration) / 1000);
  let bucket = buckets.get(second);
  if (!bucket) buckets.set(second, bucket = { n: 0, times: [], wrong: 0, broken: 0, damaged: 0 });
  bucket.n++;
  if (bucket.times.length < 1000) bucket.times.push(row.duration);
  if (row.damage > 0) bucket.damaged++;
  if (row.status >= 500 || row.grpc_status > 0) bucket.broken++; else if (row.status >= 400) bucket.wrong++;
}

function series() {
  const now = Math.floor(Date.now() / 1000), x = [], rate = [], half = [], most = [], wrong = [], broken = [], damaged = [];
  for (const second of buckets.keys()) if (second < now - SECONDS) buckets.delete(second);
  for (let second = now - SECONDS; second < now; second++) {
    const b = buckets.get(second), times = b ? [...b.times].sort((a, c) => a - c) : [];
    x.push(second);
    rate.push(b ? b.n : 0);
    half.push(times.length ? times[Math.floor(times.length / 2)] : null);
    most.push(times.length ? times[Math.min(times.length - 1, Math.floor(times.length * 0.95))] : null);
    wrong.push(b ? b.wrong : 0); broken.push(b ? b.broken : 0); damaged.push(b ? b.damaged : 0);
  }
  return [[x, rate], [x, half, most], [x, wrong, broken, damaged]];
}

function plot() {
  const probe = node('span');
  document.body.append(probe);
  const color = (name) => { probe.style.color = `var(${name})`; return getComputedStyle(probe).color; };
  const axis = () => ({ stroke: color('--faint'), grid: { stroke: color('--line'), width: 0.5 }, ticks: { show: false }, font: '10px sans-serif', size: 40, space: 24 });
  const lines = [['--accent'], ['--accent', '--moved'], ['--wrong', '--broken', '--moved']];
  for (const one of plots) one.destroy();
  plots.length = 0;
  ['plot-rate', 'plot-time', 'plot-errors'].forEach((id, at) => {
    const place = $(id);
    plots.push(new uPlot({
      width: place.clientWidth || 300, height: 84, padding: [6, 6, 0, 0], cursor: { show: false }, legend: { show: false },
      scales: { y: { range: (u, min, max) => [0, Math.max(1, max ?? 1)] } },
      axes: [{ ...axis(), size: 18, space: 70 }, axis()],
      series: [{}, ...lines[at].map((name) => ({ stroke: color(name), width: 1.5, fill: at === 0 ? `color-mix(in srgb, ${color(name)} 18%, transparent)` : undefined, points: { show: at === 1, size: 4, fill: color(name) } }))],
    }, series()[at], place));
  });
  probe.remove();
}

function tick() {
  const data = series();
  plots.forEach((one, at) => one.setData(data[at]));
  const last = (list) => list.at(-2) ?? 0;
  $('plot-rate').setAttribute('aria-label', `${last(data[0][1])} a second`);
  $('plot-time').setAttribute('aria-label', `median ${last(data[1][1])} ms, 95 percent below ${last(data[1][2])} ms`);
  $('plot-errors').setAttribute('aria-label', `${last(data[2][1])} client errors, ${last(data[2][2])} server errors, ${last(data[2][3])} damaged in a second`);
}

// ---- keys and buttons

function pause() {
  paused = !paused;
  $('pause').setAttribute('aria-pressed', paused);
  $('pause').textContent = paused ? 'Go on' : 'Pause';
  if (!paused) { waiting.forEach(add); waiting = []; }
  if (document.body.dataset.state !== 'gone') state(paused ? 'paused' : 'live');
  draw();
}

function placeholder() {
  $('filter').placeholder = $('mode').value === 'text' ? 'Words, all of which occur' : 'http.res.status >= 400 && http.req.host == "api.example.com", then Enter';
}

function filter(now) {
  const text = $('filter').value.trim();
  $('fault').textContent = '';
  if ($('mode').value === 'text') {
    words = text.toLowerCase().split(/\s+/).filter(Boolean);
    if (expression) { expression = ''; reset(); stream?.abort(); }
    list();
  } else if (now) {
    words = [];
    if (text !== expression) { expression = text; reset(); stream?.abort(); }
  }
}

const THEMES = { auto: '◐ Auto', light: '☀ Light', dark: '☾ Dark' };
function theme(name) {
  localStorage.setItem('theme', name);
  name === 'auto' ? delete document.documentElement.dataset.theme : document.documentElement.dataset.theme = name;
  $('theme').textContent = THEMES[name];
  plot();
}

document.addEventListener('keydown', (e) => {
  const typing = /^(INPUT|SELECT|TEXTAREA)$/.test(e.target.tagName) || e.ctrlKey || e.metaKey || e.altKey || $('login').open;
  if (e.key === 'Escape' && !$('login').open) { $('detail').hidden ? e.target.blur() : close(); return; }
  if (typing) return;
  const page = Math.floor($('scroll').clientHeight / ROW) - 1;
  const inTabs = e.target.getAttribute('role') === 'tab';
  const keys = {
    '/': () => $('filter').focus(),
    ArrowDown: () => move(1), ArrowUp: () => move(-1), PageDown: () => move(page), PageUp: () => move(-page),
    Home: () => listed.length && choose(listed[0]), End: () => { following = true; draw(); },
    ArrowLeft: () => inTabs && turn(-1), ArrowRight: () => inTabs && turn(1),
    Enter: () => e.target === $('grid') ? open() : null, ' ': () => e.target.tagName === 'BUTTON' ? null : pause(),
  };
  if (e.target === $('panel') || !(e.key in keys)) return;
  if (e.key === 'Enter' && e.target !== $('grid')) return;
  if (e.key === ' ' && e.target.tagName === 'BUTTON') return;
  e.preventDefault();
  keys[e.key]();
});

function turn(by) {
  tab = TABS[(TABS.indexOf(tab) + by + TABS.length) % TABS.length];
  show();
  $(`tab-${tab}`).focus();
}

$('scroll').addEventListener('scroll', () => {
  const scroll = $('scroll');
  following = scroll.scrollTop + scroll.clientHeight >= scroll.scrollHeight - ROW;
  draw();
});
$('tools').addEventListener('submit', (e) => { e.preventDefault(); filter(true); });
$('filter').addEventListener('input', () => filter($('filter').value === ''));
$('mode').addEventListener('change', () => { placeholder(); filter(false); });
$('classes').addEventListener('click', (e) => {
  const name = e.target.dataset.class;
  if (!name) return;
  classes.has(name) ? classes.delete(name) : classes.add(name);
  e.target.setAttribute('aria-pressed', classes.has(name));
  list();
});
$('pause').addEventListener('click', pause);
$('clear').addEventListener('click', () => { all = []; listed = []; waiting = []; lasting.clear(); dropped = behind = 0; draw(); });
$('har').addEventListener('click', () => save(listed, 'ringtap.har'));
$('one-har').addEventListener('click', () => save([chosen], `${chosen.id}.har`));
$('copy-curl').addEventListener('click', async () => {
  const answer = await ask(`transactions/${encodeURIComponent(chosen.id)}/curl`);
  const text = (await answer.text()).trim();
  const button = $('copy-curl');
  if (answer.ok && navigator.clipboard) {
    await navigator.clipboard.writeText(text);
    button.textContent = 'Copied';
    setTimeout(() => { button.textContent = 'Copy as curl'; }, 1500);
  } else {
    $('panel').replaceChildren(node('pre', {}, text));
  }
});
$('close').addEventListener('click', close);
$('theme').addEventListener('click', () => {
  const names = Object.keys(THEMES);
  theme(names[(names.indexOf(localStorage.getItem('theme') || 'auto') + 1) % names.length]);
});
new ResizeObserver(draw).observe($('scroll'));
new ResizeObserver(() => plots.forEach((one) => one.setSize({ width: one.root.parentNode.clientWidth, height: 84 }))).observe($('plots'));
matchMedia('(prefers-color-scheme: dark)').addEventListener('change', plot);
$('head').append(...COLUMNS.map(([name, , kind]) => node('div', { role: 'columnheader', ...(kind === 'number' ? { class: kind } : {}) }, name)));
placeholder();
theme(localStorage.getItem('theme') || 'auto');
setInterval(tick, 1000);
draw();
connect();
