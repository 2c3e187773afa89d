// The lifecycle of a site, with the mouse and without reloading.

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';

import { assertQuiet, newPage, open, signIn } from './browser.mjs';
import { Server, SLOW } from './server.mjs';

const DIGEST = `sha256:${'a'.repeat(64)}`;
let browser;
let server;
before(async () => {
  [browser, server] = await Promise.all([open(), Server.start(SLOW)]);
  await server.user('ada', 'admin');
});
after(async () => {
  await browser.close();
  await server.stop();
});

test('a site is created, provisioned, promoted and terminated', async () => {
  const page = await newPage(browser, server);
  await signIn(page, 'ada');
  await page.getByRole('link', { name: 'Sites', exact: true }).click();
  await page.getByText('There are no sites yet.').waitFor();

  // The error stands next to its field, and the form keeps all input.
  await page.getByRole('link', { name: 'Create a site' }).click();
  await page.getByLabel('Id').fill('Shop');
  await page.getByLabel('Title').fill('The shop');
  await page.getByLabel('Theme').fill('twentytwentyfive');
  await page.getByLabel('Hostnames').fill('shop.example.com\nwww.shop.example.com');
  page.ignoreConsole = true;
  await page.getByRole('button', { name: 'Create the site' }).click();
  await page.locator('#id-problem').getByText('lower-case').waitFor();
  page.ignoreConsole = false;
  assert.equal(await page.getByLabel('Title').inputValue(), 'The shop');
  await page.getByLabel('Id').fill('shop');
  await page.getByRole('button', { name: 'Create the site' }).click();
  await page.waitForURL('**/console/sites/shop');
  const state = page.locator('#live > .summary');
  await state.getByText('created').waitFor();

  // The page shows each step as running and then as done, without a reload.
  await page.getByRole('link', { name: 'Provision' }).click();
  await page.getByText('routes 2 hostnames to blue').waitFor();
  await page.getByRole('button', { name: 'Provision' }).click();
  await page.waitForURL('**/console/sites/shop');
  await page.evaluate(() => { globalThis.loadedOnce = true; });
  await page.getByRole('row', { name: /^Install running/ }).waitFor();
  await page.getByRole('row', { name: /^ActivateTheme running/ }).waitFor();
  await state.getByText('active').waitFor();
  await page.getByRole('row', { name: /^ActivateTheme succeeded/ }).waitFor();
  assert.equal(await page.evaluate(() => globalThis.loadedOnce), true, 'the page was not loaded again');
  await page.getByRole('link', { name: 'log of Install' }).click();
  await page.locator('pre.log').waitFor();

  // Green becomes the active canary, and the site moves to it.
  await page.goto('/console/services');
  await page.getByRole('link', { name: 'Deploy to green' }).click();
  await page.getByLabel('Digest').fill('dev');
  page.ignoreConsole = true;
  await page.getByRole('button', { name: 'Deploy to green' }).click();
  await page.locator('#imageTag-problem').waitFor();
  page.ignoreConsole = false;
  await page.getByLabel('Digest').fill(DIGEST);
  await page.getByRole('button', { name: 'Deploy to green' }).click();
  await page.waitForURL('**/console/operations/op-*');
  await page.locator('.panel > .headline').getByText('succeeded').waitFor();
  await page.goto('/console/services');
  await page.getByRole('link', { name: 'Select green' }).click();
  await page.getByText('No site moves').waitFor();
  await page.getByRole('button', { name: 'Select green' }).click();
  await page.waitForURL('**/console/services');
  await page.locator('.side.green').getByText('active canary').waitFor();
  await page.goto('/console/sites/shop');
  await page.getByRole('link', { name: 'Promote' }).click();
  await page.getByText('from blue to green').waitFor();
  await page.getByRole('button', { name: 'Promote' }).click();
  await page.waitForURL('**/console/sites/shop');
  await page.getByRole('row', { name: /^FlushCaches succeeded/ }).waitFor();
  await state.getByText('green, and routed there').waitFor();
  assert.match(await server.visit('shop.example.com'), /green/);

  // Terminating requires the id of the site.
  await page.getByRole('link', { name: 'Terminate' }).click();
  await page.getByLabel('Type shop to confirm').fill('shops');
  page.ignoreConsole = true;
  await page.getByRole('button', { name: 'Terminate' }).click();
  await page.getByText('The input is not `shop`; nothing was done').waitFor();
  page.ignoreConsole = false;
  await page.getByLabel('Type shop to confirm').fill('shop');
  await page.getByRole('button', { name: 'Terminate' }).click();
  await page.waitForURL('**/console/sites/shop');
  await page.getByText('There is no longer a site with this id').waitFor();
  await page.getByRole('row', { name: /^DeleteSecrets succeeded/ }).waitFor();
  assertQuiet(page);
});

test('the table is searched and filtered, and its address has the filter', async () => {
  for (const id of ['roses', 'tulips', 'violets']) await server.site(id);
  const page = await newPage(browser, server);
  await signIn(page, 'ada');
  await page.goto('/console/sites');
  await page.getByRole('link', { name: 'violets' }).waitFor();
  await page.getByLabel('Search').pressSequentially('tulip');
  await page.getByRole('link', { name: 'roses' }).waitFor({ state: 'detached' });
  await page.waitForURL(/[?&]q=tulip/);
  assert.equal(await page.locator('tbody tr').count(), 1);
  await page.reload();
  assert.equal(await page.getByLabel('Search').inputValue(), 'tulip');
  assert.equal(await page.locator('tbody tr').count(), 1);
  await page.getByLabel('State').selectOption('active');
  await page.getByText('No site matches the filter').waitFor();
  await page.getByRole('link', { name: 'Show all sites' }).click();
  await page.getByRole('link', { name: 'roses' }).waitFor();
  await page.goto('/console/sites?limit=2');
  await page.getByRole('link', { name: 'Next page' }).click();
  await page.getByRole('link', { name: 'violets' }).waitFor();
  await page.getByRole('link', { name: 'First page' }).click();
  await page.getByRole('link', { name: 'roses' }).waitFor();

  // The table shows changes of a site without a reload.
  await page.goto('/console/sites');
  await server.request('POST', '/sites/roses/provision');
  await page.getByRole('row', { name: /^roses/ }).getByText('provisioning').waitFor();
  await page.getByRole('row', { name: /^roses/ }).getByText('active').waitFor();
  assertQuiet(page);
});

test('a viewer reads everything and changes nothing', async () => {
  await server.user('vera', 'viewer');
  await server.site('orchids');
  const page = await newPage(browser, server);
  await signIn(page, 'vera');
  for (const path of ['/console/services', '/console/sites', '/console/sites/orchids', '/console/rollouts', '/console/operations']) {
    await page.goto(path);
    await page.locator('main h1').waitFor();
    const buttons = await page.locator('main').getByRole('button').allTextContents();
    const acting = await page.locator('main a.button:not(.pager a)').allTextContents();
    assert.deepEqual([...buttons.filter((name) => name !== 'Filter'), ...acting], [], path);
  }
  assertQuiet(page);
  page.ignoreConsole = true;
  const forbidden = ['/console/sites/create', '/console/sites/orchids/terminate', '/console/services/green/select', '/console/rollouts/start'];
  for (const path of forbidden) {
    const response = await page.goto(path);
    assert.equal(response.status(), 403, path);
    await page.getByText('your role is `viewer`').waitFor();
  }
  // A forged form is rejected too.
  const csrf = await page.locator('input[name=csrf]').first().inputValue();
  const response = await page.request.post('/console/sites/orchids/provision', {
    form: { csrf }, headers: { 'sec-fetch-site': 'same-origin' }, maxRedirects: 0,
  });
  assert.equal(response.status(), 403);
  assert.equal((await server.request('GET', '/sites/orchids')).state, 'created');
});

test('a parked operation names its remedy, and is retried and canceled', async () => {
  const image = `sha256:${'c'.repeat(64)}`;
  await server.declare(image, 'no-themes');
  await server.request('POST', '/services?wait=30s', { imageTag: image, service: 'blue' });
  await server.site('dahlias', { service: 'blue' });
  const page = await newPage(browser, server);
  await signIn(page, 'ada');
  await server.request('POST', '/sites/dahlias/provision');
  await page.goto('/console/services');
  await page.getByRole('row', { name: /^provision/ }).getByText('theme_missing').waitFor();
  await page.getByRole('row', { name: /theme_missing/ }).getByRole('link', { name: 'provision' }).click();
  await page.getByText('allow its installation').waitFor();
  await page.getByRole('button', { name: 'Retry' }).click();
  // The retry ran, and the operation is parked again.
  await page.getByRole('row', { name: /^ActivateTheme/ }).getByText('-r2').waitFor();
  await page.getByText('allow its installation').waitFor();
  await page.getByRole('link', { name: 'Cancel' }).click();
  await page.getByRole('button', { name: 'Cancel the operation' }).click();
  await page.locator('.panel > .headline').getByText('cancelled').waitFor();
  assert.equal((await server.request('GET', '/sites/dahlias')).state, 'created');
  assertQuiet(page);
});
