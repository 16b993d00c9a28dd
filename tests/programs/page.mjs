// The page of /devtools in Chromium: node page.mjs MODULES URL FOLDER
// Prints what it measured as JSON; pictures go into the folder. Fails with a message if something is not as it should be.
import { createRequire } from 'node:module';
import { mkdtempSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { tmpdir } from 'node:os';

const [modules, url, folder] = process.argv.slice(2);
const require = createRequire(join(modules, 'x.js'));
const { chromium } = require('playwright-core');
const axe = readFileSync(require.resolve('axe-core/axe.min.js'), 'utf8');

const must = (holds, what) => { if (!holds) throw new Error(what); };
const context = await chromium.launchPersistentContext(mkdtempSync(join(tmpdir(), 'page-')), {
  executablePath: '/usr/bin/chromium',
  headless: true,
  args: ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync'],
  viewport: { width: 1440, height: 900 },
  colorScheme: 'light',
  bypassCSP: true,
  acceptDownloads: true,
  permissions: ['clipboard-read', 'clipboard-write'],
});
const page = context.pages()[0] ?? await context.newPage();
const asked = [], faults = [];
page.on('request', (request) => asked.push(request.url()));
page.on('pageerror', (error) => faults.push(String(error)));
page.on('console', (message) => message.type() === 'error' && faults.push(message.text()));
page.on('dialog', (dialog) => { faults.push(`a dialog: ${dialog.message()}`); dialog.dismiss(); });

const rows = page.locator('#rows [role=row]:visible');
const counts = () => page.locator('#counts').innerText();
const until = async (holds, what) => {
  for (let n = 0; n < 100; n++) {
    if (await holds()) return;
    await page.waitForTimeout(100);
  }
  throw new Error(`${what}: ${await counts()}`);
};
const measured = {};

try {
  const begun = Date.now();
  await page.goto(url);
  await until(async () => await rows.count() > 0, 'no rows');
  measured.first_row_ms = Date.now() - begun;
  must(await page.locator('#state-text').innerText() === 'live', 'it is not live');
  await page.waitForTimeout(2500);
  await page.screenshot({ path: join(folder, 'devtools-light.png') });

  // By words, by class, by rule.
  await page.keyboard.press('/');
  await page.keyboard.type('hostile');
  await until(async () => await rows.count() === 1, 'one row has the word');
  const path = await rows.first().locator('[role=gridcell]').nth(4).innerText();
  must(path.includes('<img/src=x/onerror=alert(1)>'), `the path is shown as text: ${path}`);
  await page.fill('#filter', '');
  await page.click('#classes [data-class="5"]');
  await until(async () => (await rows.allInnerTexts()).every((text) => text.includes('503')) && await rows.count() > 0, 'only errors');
  await page.click('#classes [data-class="5"]');
  await page.selectOption('#mode', 'rule');
  await page.fill('#filter', 'http.res.status ==');
  await page.press('#filter', 'Enter');
  await until(async () => (await page.locator('#fault').innerText()).length > 0, 'a broken rule is named');
  measured.fault = await page.locator('#fault').innerText();
  await page.fill('#filter', 'http.res.status == 503');
  await page.press('#filter', 'Enter');
  await until(async () => (await page.locator('#fault').innerText()) === '' && await rows.count() === 1, 'a rule filters');
  await page.fill('#filter', '');
  await page.press('#filter', 'Enter');
  await until(async () => await rows.count() > 3, 'all are back');
  await page.selectOption('#mode', 'text');

  // One of them, by keys.
  await page.fill('#filter', '/page/json');
  await until(async () => await rows.count() >= 1, 'the JSON is there');
  await page.press('#filter', 'Escape');
  await page.focus('#grid');
  await page.keyboard.press('ArrowUp');
  await page.keyboard.press('Enter');
  await page.click('#tab-Response');
  await until(async () => (await page.locator('#panel pre').innerText()).includes('"hello": "world"'), 'the body is pretty');
  await page.click('#tab-Headers');
  must((await page.locator('#panel').innerText()).includes('X-Hostile'), 'header fields are shown');
  must((await page.locator('#panel').innerText()).includes('<script>'), 'markup is shown as text');
  await page.click('#copy-curl');
  await until(async () => (await page.evaluate(() => navigator.clipboard.readText())).startsWith('curl '), 'a curl command');
  const [download] = await Promise.all([page.waitForEvent('download'), page.click('#one-har')]);
  const har = JSON.parse(readFileSync(await download.path(), 'utf8'));
  must(har.log.entries.length === 1 && har.log.entries[0].response.content.text.includes('world'), 'a HAR');
  for (const tab of ['Overview', 'Timing', 'Messages', 'Raw', 'Request']) await page.click(`#tab-${tab}`);
  await page.click('#tab-Response');
  await page.screenshot({ path: join(folder, 'devtools-detail.png') });
  await page.keyboard.press('Escape');
  must(!await page.locator('#detail').isVisible(), 'Escape closes');
  await page.fill('#filter', '/page/events');
  await until(async () => await rows.count() >= 1, 'the event stream is there');
  await rows.first().click();
  await page.click('#tab-Messages');
  await until(async () => (await page.locator('#panel').innerText()).includes('second event'), 'messages are shown');
  await page.keyboard.press('Escape');
  await page.fill('#filter', '');

  // Who cannot see, or sees in the dark.
  for (const scheme of ['light', 'dark']) {
    await page.emulateMedia({ colorScheme: scheme });
    await page.waitForTimeout(300);
    await page.evaluate(axe);
    const { violations } = await page.evaluate(() => window.axe.run(document, { runOnly: ['wcag2a', 'wcag2aa', 'wcag21aa'] }));
    const grave = violations.filter((one) => ['serious', 'critical'].includes(one.impact));
    must(!grave.length, `${scheme}: ${JSON.stringify(grave.map((one) => [one.id, one.nodes.slice(0, 3).map((node) => [node.html, node.any[0]?.message])]), null, 1)}`);
  }
  await rows.first().click();
  await page.waitForTimeout(1200);
  await page.screenshot({ path: join(folder, 'devtools-dark.png') });
  await page.keyboard.press('Escape');

  // A hundred thousand.
  const sizes = await page.evaluate(async () => {
    const one = all.at(-1);
    const begun = performance.now();
    for (let n = 0; n < 100_000; n++) add({ ...one, id: `x${n}`, seq: 1e9 + n, phase: 'complete', path: `/row/${n}` });
    const added = performance.now() - begun;
    const frames = [];
    const scroll = document.getElementById('scroll');
    following = false;
    for (let n = 0; n < 60; n++) {
      const before = performance.now();
      scroll.scrollTop = n * 40_000;
      paint();
      frames.push(performance.now() - before);
      await new Promise(requestAnimationFrame);
    }
    const before = performance.now();
    words = ['/row/99'];
    list();
    paint();
    const filtered = performance.now() - before;
    words = [];
    list();
    frames.sort((a, b) => a - b);
    return { rows: all.length, add_ms: added, frame_median_ms: frames[30], frame_worst_ms: frames[59], filter_ms: filtered, nodes: document.querySelectorAll('*').length };
  });
  Object.assign(measured, sizes);
  must(sizes.rows >= 100_000 && sizes.nodes < 2000, `only what is seen is drawn: ${JSON.stringify(sizes)}`);
  must(sizes.frame_median_ms < 50, `scrolling is smooth: ${JSON.stringify(sizes)}`);

  const outside = asked.filter((one) => !one.startsWith(new URL(url).origin) && !one.startsWith('blob:') && !one.startsWith('data:'));
  must(!outside.length, `it asks nobody else: ${outside}`);
  const unexpected = faults.filter((fault) => !fault.includes('400 (Bad Request)'));
  must(!unexpected.length, `nothing fails: ${unexpected}`);
  console.log(JSON.stringify(measured));
} catch (error) {
  await page.screenshot({ path: join(folder, 'devtools-failed.png') });
  writeFileSync(join(folder, 'devtools-failed.txt'), String(error.stack));
  console.error(error.message, faults);
  process.exitCode = 1;
}
await context.close();
