// The second factor: setup with an authenticator app, and the code after the password.

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';

import { assertQuiet, newPage, open, signIn } from './browser.mjs';
import { code } from './totp.mjs';
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

test('a second factor is set up with an app and required after the password', async () => {
  await server.user('ada', 'viewer');
  const page = await newPage(browser, server);
  await signIn(page, 'ada');
  await page.goto('/console/account');
  await page.getByRole('link', { name: 'Set up a second factor' }).click();
  await page.getByRole('img', { name: 'The key as a QR code' }).waitFor();
  const key = await page.locator('#secret').innerText();
  await page.getByLabel('Code from the app').fill('000000');
  await page.getByLabel('Your password').fill(PASSWORD);
  page.ignoreConsole = true;
  await page.getByRole('button', { name: 'Set up the second factor' }).click();
  await page.getByRole('alert').getByText('not the one that the app shows').waitFor();
  page.ignoreConsole = false;
  await page.getByLabel('Code from the app').fill(code(key, 0));
  await page.getByLabel('Your password').fill(PASSWORD);
  await page.getByRole('button', { name: 'Set up the second factor' }).click();
  await page.getByRole('heading', { name: 'Recovery codes' }).waitFor();
  const recovery = await page.locator('.codes code').allInnerTexts();
  assert.equal(recovery.length, 8);
  await page.getByRole('link', { name: 'I have stored the codes' }).click();
  await page.getByText('8 recovery codes are left').waitFor();
  await page.getByRole('button', { name: 'Sign out' }).click();
  await page.waitForURL('**/console/sign-in');

  const enter = async (text) => {
    await page.getByLabel('Code').fill(text);
    await page.getByRole('button', { name: 'Sign in' }).click();
  };
  const password = async () => {
    await page.goto('/console/sign-in?next=%2Fconsole%2Fsites');
    await page.getByLabel('Name').fill('ada');
    await page.getByLabel('Password').fill(PASSWORD);
    await page.getByRole('button', { name: 'Sign in' }).click();
    await page.getByText('Signing in as').waitFor();
  };
  await password();
  page.ignoreConsole = true;
  await enter('000000');
  await page.getByRole('alert').getByText('The code is wrong').waitFor();
  page.ignoreConsole = false;
  await enter(code(key, 1));
  await page.waitForURL('**/console/sites');
  await page.getByRole('button', { name: 'Sign out' }).click();
  await page.waitForURL('**/console/sign-in');
  await password();
  await enter(recovery[0]);
  await page.waitForURL('**/console/sites');
  await page.goto('/console/account');
  await page.getByText('7 recovery codes are left').waitFor();
  await page.getByLabel('Password to remove the second factor').fill(PASSWORD);
  await page.getByRole('button', { name: 'Remove the second factor' }).click();
  await page.getByRole('link', { name: 'Set up a second factor' }).waitFor();
  assertQuiet(page);
});
