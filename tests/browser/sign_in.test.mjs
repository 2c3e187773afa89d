// Sign-in and sign-out, and rejected sign-ins.

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';

import { assertQuiet, newPage, open, signIn } from './browser.mjs';
import { PASSWORD, Server } from './server.mjs';

let browser;
let server;
before(async () => {
  [browser, server] = await Promise.all([open(), Server.start()]);
});
after(async () => {
  await browser.close();
  await server.stop();
});

test('the printed link creates the first user, once', async () => {
  const page = await newPage(browser, server);
  await page.goto('/');
  await page.getByText('cdm user create ada --role admin').waitFor();
  assert.match(server.setup, /^http:\/\/127\.0\.0\.1:\d+\/console\/setup\/\S+$/);

  await page.goto(server.setup);
  await page.getByLabel('Name').fill('Grace Hopper');
  await page.getByLabel('Password', { exact: true }).fill(PASSWORD);
  await page.getByLabel('Repeat the password').fill(PASSWORD);
  page.ignoreConsole = true;
  await page.getByRole('button', { name: 'Create the user' }).click();
  await page.getByRole('alert').getByText('lower-case').waitFor();
  page.ignoreConsole = false;
  await page.getByLabel('Name').fill('grace');
  await page.getByLabel('Password', { exact: true }).fill(PASSWORD);
  await page.getByLabel('Repeat the password').fill(PASSWORD);
  await page.getByRole('button', { name: 'Create the user' }).click();
  await page.waitForURL('**/console/services');
  await page.getByText('admin', { exact: true }).waitFor();

  const other = await newPage(browser, server);
  other.ignoreConsole = true;
  await other.goto(server.setup);
  await other.getByText('This link was already used').waitFor();
  assertQuiet(page);
});

test('a wrong password is rejected, the right one leads to the requested page', async () => {
  await server.user('ada', 'viewer');
  const page = await newPage(browser, server);
  await page.goto('/console/sites?state=active');
  assert.match(page.url(), /\/console\/sign-in\?next=/);
  await page.getByLabel('Name').fill('ada');
  await page.getByLabel('Password').fill('wrong horse battery');
  page.ignoreConsole = true;
  await page.getByRole('button', { name: 'Sign in' }).click();
  await page.getByRole('alert').getByText('The name or the password is wrong').waitFor();
  page.ignoreConsole = false;
  assert.equal(await page.getByLabel('Name').inputValue(), 'ada', 'the input is kept');
  await page.getByLabel('Password').fill(PASSWORD);
  await page.getByRole('button', { name: 'Sign in' }).click();
  await page.waitForURL('**/console/sites?state=active');
  assert.equal(await page.getByLabel('State').inputValue(), 'active');

  const [cookie] = await page.context().cookies();
  assert.equal(`${cookie.name} ${cookie.httpOnly} ${cookie.sameSite} ${cookie.path}`, 'cdm true Lax /');
  assertQuiet(page);

  await page.getByRole('button', { name: 'Sign out' }).click();
  await page.waitForURL('**/console/sign-in');
  await page.goto('/console/sites');
  assert.match(page.url(), /sign-in/);
  const { items } = await server.request('GET', '/audit?limit=10');
  const entries = items.filter((entry) => entry.target === 'ada').map((entry) => `${entry.actor} ${entry.action} ${entry.outcome}`);
  assert.deepEqual(entries.slice(0, 3), [
    'user:ada session.close accepted', 'user:ada session.open accepted', 'console session.open invalid',
  ]);
});

test('wrong guesses lock one account and no other', async () => {
  await server.user('bob', 'viewer');
  await server.user('carol', 'viewer');
  const page = await newPage(browser, server);
  page.ignoreConsole = true;
  await page.goto('/console/sign-in');
  for (let attempt = 0; attempt < 10; attempt += 1) {
    await page.getByLabel('Name').fill('bob');
    await page.getByLabel('Password').fill(`guess number ${attempt}`);
    await page.getByRole('button', { name: 'Sign in' }).click();
    await page.getByRole('alert').waitFor();
  }
  await page.getByLabel('Password').fill(PASSWORD);
  await page.getByRole('button', { name: 'Sign in' }).click();
  await page.getByRole('alert').getByText('failed attempts to sign in as').waitFor();
  await signIn(page, 'carol');
});

test('sessions are listed and ended, and end with the password', async () => {
  await server.user('dora', 'operator');
  const [first, second] = [await newPage(browser, server), await newPage(browser, server)];
  await signIn(second, 'dora');
  await signIn(first, 'dora');
  await first.getByRole('link', { name: 'dora' }).click();
  await first.getByText('this browser').waitFor();
  assert.equal(await first.locator('tbody tr').count(), 2);
  await first.getByLabel('Your password').fill(PASSWORD);
  await first.getByRole('button', { name: /^End/ }).click();
  await first.locator('tbody tr').nth(1).waitFor({ state: 'detached' });
  // The other browser shows it at once, without a request.
  await second.getByText('You are signed out').waitFor();
  assert.equal((await second.goto('/console/sites')).url().includes('sign-in'), true);

  await signIn(second, 'dora');
  await first.getByLabel('Current password').fill(PASSWORD);
  await first.getByLabel('New password', { exact: true }).fill('another horse battery');
  await first.getByLabel('Repeat the new password').fill('another horse battery');
  await first.getByRole('button', { name: 'Change password' }).click();
  await first.waitForURL('**/console/account');
  await second.getByText('You are signed out').waitFor();
  assertQuiet(first);
  assertQuiet(second);
});
