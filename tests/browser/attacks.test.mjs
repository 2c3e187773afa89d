// Attacks from other sites, with planted and stolen cookies, and with hostile text have no effect.

import assert from 'node:assert/strict';
import { createServer } from 'node:http';
import { after, before, test } from 'node:test';

import { assertQuiet, newPage, open, signIn } from './browser.mjs';
import { PASSWORD, Server } from './server.mjs';

let browser;
let server;
before(async () => {
  [browser, server] = await Promise.all([open(), Server.start()]);
  await server.user('ada', 'admin');
  await server.live('shop');
});
after(async () => {
  await browser.close();
  await server.stop();
});

// Serves another site on the same machine: a page with a form that submits itself.
async function attackingSite(action, fields) {
  const inputs = Object.entries(fields).map(([name, value]) => `<input name="${name}" value="${value}">`);
  const html = `<body><form method="post" action="${action}">${inputs.join('')}</form><script>document.forms[0].submit()</script>`;
  const site = createServer((_, response) => response.writeHead(200, { 'content-type': 'text/html' }).end(html));
  await new Promise((listening) => site.listen(0, '127.0.0.1', listening));
  return { url: `http://127.0.0.1:${site.address().port}/`, close: () => site.close() };
}

test('a form of another site is rejected, even with the right token', async () => {
  const page = await newPage(browser, server);
  await signIn(page, 'ada');
  const csrf = await page.locator('input[name=csrf]').first().inputValue();
  page.removeAllListeners('request');
  page.ignoreConsole = true;
  for (const [path, fields] of [
    ['/console/sites/shop/terminate', { csrf, typed: 'shop' }],
    ['/console/services/green/select', { csrf }],
    ['/console/sign-out', { csrf }],
    ['/console/sign-in', { name: 'ada', password: PASSWORD }],
  ]) {
    const site = await attackingSite(server.url + path, fields);
    const rejected = page.waitForResponse((response) => response.url() === server.url + path);
    await page.goto(site.url);
    assert.equal((await rejected).status(), 403, path);
    await page.getByText('The form was sent by another site').waitFor();
    site.close();
  }
  await page.goto(`${server.url}/console/services`);
  await page.locator('.side.blue').getByText('active canary').waitFor();
  assert.equal((await server.request('GET', '/sites/shop')).state, 'active');
});

test('a form without the token of its session is rejected', async () => {
  const [page, other] = [await newPage(browser, server), await newPage(browser, server)];
  await signIn(page, 'ada');
  await signIn(other, 'ada');
  const foreign = await other.locator('input[name=csrf]').first().inputValue();
  for (const csrf of ['', 'guessed', foreign]) {
    const response = await page.request.post('/console/sites/shop/promote', {
      form: { csrf }, headers: { 'sec-fetch-site': 'same-origin' }, maxRedirects: 0,
    });
    assert.equal(response.status(), 403);
    assert.match(await response.text(), /belongs to another session/);
  }
});

test('no page can be framed, and other origins cannot read responses', async () => {
  const response = await fetch(`${server.url}/console/sign-in`, { headers: { origin: 'http://evil.example' } });
  const policy = response.headers.get('content-security-policy');
  for (const rule of ["default-src 'none'", "script-src 'self'", "frame-ancestors 'none'", "base-uri 'none'", "form-action 'self'"]) {
    assert.ok(policy.includes(rule), rule);
  }
  assert.ok(!/unsafe|\*|http/.test(policy), policy);
  assert.equal(response.headers.get('x-frame-options'), 'DENY');
  assert.equal(response.headers.get('x-content-type-options'), 'nosniff');
  assert.equal(response.headers.get('access-control-allow-origin'), null);
  assert.equal(response.headers.get('cache-control'), 'no-store');
});

test('a sign-in replaces a planted cookie', async () => {
  const page = await newPage(browser, server);
  const planted = 'cdm_session_planted-by-an-attacker';
  await page.context().addCookies([{ name: 'cdm', value: planted, url: server.url }]);
  await signIn(page, 'ada');
  const [cookie] = await page.context().cookies();
  assert.notEqual(cookie.value, planted);
  const thief = await newPage(browser, server);
  await thief.context().addCookies([{ name: 'cdm', value: planted, url: server.url }]);
  await thief.goto('/console/services');
  assert.match(thief.url(), /sign-in/);

  // A second sign-in creates another session.
  await page.getByRole('button', { name: 'Sign out' }).click();
  await signIn(page, 'ada');
  const [second] = await page.context().cookies();
  assert.notEqual(second.value, cookie.value);
});

test('a stolen cookie is invalid after the sign-out', async () => {
  const page = await newPage(browser, server);
  await signIn(page, 'ada');
  const cookies = await page.context().cookies();
  const thief = await newPage(browser, server);
  await thief.context().addCookies(cookies);
  await thief.goto('/console/services');
  assert.doesNotMatch(thief.url(), /sign-in/);
  await page.getByRole('button', { name: 'Sign out' }).click();
  await page.waitForURL('**/console/sign-in');
  await thief.getByText('You are signed out').waitFor();
  await thief.goto('/console/services');
  assert.match(thief.url(), /sign-in/);
});

test('a cookie is not accepted as a token, nor a token as a cookie', async () => {
  const page = await newPage(browser, server);
  await signIn(page, 'ada');
  const [cookie] = await page.context().cookies();
  assert.equal((await page.request.get('/sites')).status(), 401, 'the API requires a token');
  const bearer = await fetch(`${server.url}/sites`, { headers: { authorization: `Bearer ${cookie.value}` } });
  assert.equal(bearer.status, 401);
  const console = await fetch(`${server.url}/console/services`, { headers: { authorization: 'Bearer an-administrator-of-the-browser-0123456789' }, redirect: 'manual' });
  assert.equal(console.status, 303);
});

test('script in a name, a reason or an address stays text', async () => {
  const script = '<img src=x onerror="globalThis.hacked=1"><script>globalThis.hacked=1</script>';
  await server.site('hostile', { name: script });
  const digest = `sha256:${'d'.repeat(64)}`;
  await server.request('POST', '/services?wait=30s', { imageTag: digest });
  await server.request('POST', `/services/history/${digest}`, { verdict: 'bad', reason: script });
  await server.request('POST', '/freezes', { reason: script, sites: ['hostile'] });
  const page = await newPage(browser, server);
  await signIn(page, 'ada');
  const address = encodeURIComponent(`"'><script>globalThis.hacked=1</script>`);
  const paths = [
    '/console/sites', '/console/sites/hostile', '/console/services', `/console/sites?q=${address}`,
    `/console/audit?actor=${address}`, '/console/sites/hostile/promote',
  ];
  for (const path of paths) {
    await page.goto(path);
    await page.locator('main h1').waitFor();
    if (['/console/sites', '/console/sites/hostile', '/console/services'].includes(path)) {
      await page.getByText('<script>globalThis.hacked=1</script>').first().waitFor();
    }
    assert.equal(await page.evaluate(() => globalThis.hacked), undefined, path);
    assert.equal(await page.locator('main script, main img').count(), 0, path);
  }
  assertQuiet(page);
  page.ignoreConsole = true;
  for (const path of [`/console/sites/${address}`, `/console/nope/${address}`, `/console/sign-in?next=${encodeURIComponent('/console/\nü')}`, `/console/sign-in?next=${encodeURIComponent('//evil.example/')}`]) {
    await page.goto(path);
    assert.equal(await page.evaluate(() => globalThis.hacked), undefined, path);
  }
  assert.equal(await page.locator('input[name=next]').inputValue(), '/console/services', 'no redirect to another site');
});
