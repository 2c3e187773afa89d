// Without scripts: every page and every action is a link or a form.

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';

import { assertQuiet, newPage, open, signIn } from './browser.mjs';
import { Server } from './server.mjs';

let browser;
let server;
before(async () => {
  [browser, server] = await Promise.all([open(), Server.start()]);
  await server.user('ada', 'admin');
});
after(async () => {
  await browser.close();
  await server.stop();
});

// Reloads the page until it contains the text.
async function reloadUntil(page, locator) {
  for (;;) {
    if (await locator.count() > 0) return;
    await page.reload();
  }
}

test('a site is created, provisioned, moved by a rollout and terminated without scripts', async () => {
  const page = await newPage(browser, server, { javaScriptEnabled: false });
  await signIn(page, 'ada');
  await page.getByRole('link', { name: 'Sites', exact: true }).click();
  await page.getByRole('link', { name: 'Create a site' }).click();
  await page.getByLabel('Id').fill('shop');
  await page.getByLabel('Title').fill('The shop');
  await page.getByLabel('Theme').fill('twentytwentyfive');
  await page.getByLabel('Hostnames').fill('shop.example.com');
  await page.getByRole('button', { name: 'Create the site' }).click();
  await page.getByRole('link', { name: 'Provision' }).click();
  await page.getByRole('button', { name: 'Provision' }).click();
  await reloadUntil(page, page.locator('#live > .summary', { hasText: 'active' }));

  await page.getByRole('link', { name: 'Sites', exact: true }).click();
  await page.getByLabel('Search').fill('nothing');
  await page.getByRole('button', { name: 'Filter' }).click();
  await page.getByText('No site matches the filter').waitFor();

  await page.goto('/console/services/green/select');
  await page.getByRole('button', { name: 'Select green' }).click();
  await page.goto('/console/rollouts/start');
  await page.getByRole('button', { name: 'Show the plan' }).click();
  await page.getByText('The first 1 site').click();
  await page.getByRole('cell', { name: 'move' }).waitFor();
  await page.getByRole('button', { name: 'Start this rollout' }).click();
  await reloadUntil(page, page.locator('.summary', { hasText: 'succeeded' }));

  await page.goto('/console/sites/shop/terminate');
  await page.getByLabel('Type shop to confirm').fill('shop');
  await page.getByRole('button', { name: 'Terminate' }).click();
  await reloadUntil(page, page.getByText('There is no longer a site with this id'));
  await page.getByRole('button', { name: 'Sign out' }).click();
  await page.waitForURL('**/console/sign-in');
  assert.equal((await server.request('GET', '/sites')).items.length, 0);
  assertQuiet(page);
});

test('every page and action is usable with the keyboard only', async () => {
  await server.site('keys');
  const page = await newPage(browser, server);
  await signIn(page, 'ada');
  await page.goto('/console/sites/keys');
  await page.keyboard.press('Tab');
  await page.keyboard.press('Enter');
  assert.equal(await page.evaluate(() => document.activeElement.id), 'main', 'the first stop skips the navigation');
  await page.keyboard.press('Tab');
  assert.equal(await page.evaluate(() => document.activeElement.textContent), 'Provision');
  const outline = await page.evaluate(() => getComputedStyle(document.activeElement).outlineStyle);
  assert.notEqual(outline, 'none', 'the focused element has an outline');
  await page.keyboard.press('Enter');
  await page.waitForURL('**/provision');
  await page.getByRole('button', { name: 'Provision' }).focus();
  await page.keyboard.press('Enter');
  await page.waitForURL('**/console/sites/keys');
  await page.locator('#live > .summary', { hasText: 'active' }).waitFor();

  // An update of the page keeps the focus.
  await page.getByRole('link', { name: 'Terminate' }).focus();
  await server.request('PUT', '/sites/keys/upgrade?wait=30s');
  await page.getByRole('row', { name: /^PatchService succeeded/ }).waitFor();
  assert.equal(await page.evaluate(() => document.activeElement.textContent), 'Terminate');
  assertQuiet(page);
});
