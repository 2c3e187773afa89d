// Rollouts: from plan to end, with live updates, with a broken image, in two tabs, and over a restart.

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';

import { assertQuiet, newPage, open, signIn, watch } from './browser.mjs';
import { QUICK, Server } from './server.mjs';

const image = (letter) => `sha256:${letter.repeat(64)}`;
let browser;
before(async () => {
  browser = await open();
});
after(async () => {
  await browser.close();
});

// Starts a server with `sites` live sites on blue, and with green as the active canary.
async function fleet(sites) {
  const server = await Server.start(QUICK);
  await server.user('ada', 'admin');
  const ids = Array.from({ length: sites }, (_, index) => `site-${index + 1}`);
  await Promise.all(ids.map((id) => server.live(id)));
  await server.request('POST', '/services?wait=30s', { imageTag: image('a'), service: 'green' });
  await server.request('POST', '/services', { selector: 'green' });
  return server;
}

// Fills in the form, reviews the plan, and starts it.
async function start(page, fields) {
  await page.getByRole('link', { name: 'Rollouts', exact: true }).click();
  await page.getByRole('link', { name: 'Start a rollout' }).click();
  for (const [label, value] of Object.entries(fields)) {
    const field = page.getByLabel(label, { exact: true });
    if (value === true) await field.check();
    else if (value.choose) await field.selectOption(value.choose);
    else await field.fill(value);
  }
  await page.getByRole('button', { name: 'Show the plan' }).click();
  await page.getByRole('button', { name: 'Start this rollout' }).click();
  await page.waitForURL('**/console/rollouts/rollout-*');
}

test('a rollout is planned, started and followed to its end', async (t) => {
  const server = await fleet(8);
  t.after(() => server.stop());
  const page = await newPage(browser, server);
  await signIn(page, 'ada');
  await page.getByRole('link', { name: 'Rollouts', exact: true }).click();
  await page.getByText('There are no rollouts yet.').waitFor();
  await page.getByRole('link', { name: 'Start a rollout' }).click();
  await page.getByText('0 sites are on green, 8 on blue').waitFor();
  await page.getByLabel('Waves', { exact: true }).fill('1 10%');
  page.ignoreConsole = true;
  await page.getByRole('button', { name: 'Show the plan' }).click();
  await page.locator('#waves-problem').getByText('100%').waitFor();
  page.ignoreConsole = false;
  await page.getByLabel('Waves', { exact: true }).fill('1 50% 100%');
  await page.getByRole('button', { name: 'Show the plan' }).click();
  await page.getByText('8 of 8 sites would change').waitFor();
  assert.equal((await server.request('GET', '/rollouts')).items.length, 0, 'a plan changes nothing');
  await page.getByRole('button', { name: 'Start this rollout' }).click();
  await page.waitForURL('**/console/rollouts/rollout-*');
  await page.locator('.summary').getByText('succeeded').waitFor();
  await page.locator('.summary').getByText('8 of 8 sites moved to green').waitFor();
  const rows = await page.locator('#live table').first().locator('tbody tr').allInnerTexts();
  assert.deepEqual(rows.map((row) => row.split(/\s+/).slice(0, 3).join(' ')), ['1 1 1', '50% 3 3', '100% 4 4']);
  await page.getByRole('img', { name: '8 of 8 sites done' }).waitFor();
  await page.goto('/console/sites?service=green');
  assert.equal(await page.locator('tbody tr').count(), 8);
  assertQuiet(page);
});

test('a rollout starts only by the plan that was reviewed', async (t) => {
  const server = await fleet(3);
  t.after(() => server.stop());
  const page = await newPage(browser, server);
  await signIn(page, 'ada');
  await page.goto('/console/rollouts/start');
  await page.getByRole('button', { name: 'Show the plan' }).click();
  await page.getByText('3 of 3 sites would change').waitFor();
  await server.request('DELETE', '/sites/site-2?wait=30s');
  page.ignoreConsole = true;
  await page.getByRole('button', { name: 'Start this rollout' }).click();
  await page.getByRole('alert').getByText('has changed since the plan was made').waitFor();
  assert.equal((await server.request('GET', '/rollouts')).items.length, 0);
});

test('a rollout of a broken image is rolled back', async (t) => {
  const server = await fleet(6);
  t.after(() => server.stop());
  // Two sites are already on green: their image is replaced in place. The other sites move to green.
  await server.request('PUT', '/sites/site-1/promote?wait=30s');
  await server.request('PUT', '/sites/site-2/promote?wait=30s');
  await server.declare(image('b'), 'failing');
  const page = await newPage(browser, server);
  await signIn(page, 'ada');
  await start(page, {
    'Which sites': { choose: 'all' }, Image: image('b'), Waves: '100%', 'Health check': '/', 'Roll back moved sites on a halt': true,
  });
  await page.locator('.summary').getByText('failed', { exact: true }).waitFor();
  await page.getByText('budget_exceeded').waitFor();
  await page.getByRole('cell', { name: 'unhealthy in place' }).first().waitFor();
  await page.getByRole('cell', { name: 'unhealthy', exact: true }).first().waitFor();
  // The previous digest is restored under these two sites, and no other site has moved.
  await page.getByText('Rolled back by').waitFor();
  await page.locator('dd').getByRole('link', { name: /^op-\d+-service-green$/ }).last().click();
  await page.locator('.panel > .headline').getByText('succeeded').waitFor();
  const { items } = await server.request('GET', '/sites');
  const on = (id) => (['site-1', 'site-2'].includes(id) ? 'green green' : 'blue blue');
  assert.deepEqual(items.map((site) => `${site.service} ${site.routedService}`), items.map(({ id }) => on(id)));
  assert.match(await server.visit('site-1.example.com'), /aaaaaaaaaaaa/);
  await page.goto('/console/services');
  await page.locator('.side.green').getByText('bad').first().waitFor();
  assertQuiet(page);
});

test('a service is rolled back to the digest that the page names', async (t) => {
  const server = await fleet(2);
  t.after(() => server.stop());
  await server.request('POST', `/services/history/${image('a')}`, { verdict: 'healthy', reason: 'a week' });
  await server.request('POST', '/services?wait=30s', { imageTag: image('b'), service: 'green' });
  const page = await newPage(browser, server);
  await signIn(page, 'ada');
  await page.getByRole('link', { name: 'Roll back green' }).click();
  assert.equal(await page.getByLabel('Digest').inputValue(), image('a'));
  // The digest has changed in the meantime: no rollback starts, and the page names the new digest.
  await server.request('POST', `/services/history/${image('a')}`, { verdict: 'bad', reason: 'after all' });
  page.ignoreConsole = true;
  await page.getByRole('button', { name: 'Roll green back' }).click();
  await page.locator('#digest-problem').waitFor();
  page.ignoreConsole = false;
  const digest = await page.getByLabel('Digest').inputValue();
  assert.notEqual(digest, image('a'));
  await page.getByRole('button', { name: 'Roll green back' }).click();
  await page.waitForURL('**/console/operations/op-*');
  await page.locator('.panel > .headline').getByText('succeeded').waitFor();
  assert.equal((await server.request('GET', '/services')).services.green.image, digest);

  // A verdict that a user sets applies to both services.
  await page.goto('/console/services');
  await page.getByRole('link', { name: `mark ${image('b')}` }).first().click();
  await page.getByLabel('Verdict').selectOption('bad');
  await page.getByLabel('Reason').fill('the checkout page is blank');
  await page.getByRole('button', { name: 'Mark the digest' }).click();
  await page.waitForURL('**/console/services');
  await page.locator('.side.green').getByText('the checkout page is blank').waitFor();
  assertQuiet(page);
});

test('two tabs on one rollout show the actions of both', async (t) => {
  const server = await fleet(4);
  t.after(() => server.stop());
  const one = await newPage(browser, server);
  await signIn(one, 'ada');
  await start(one, { Waves: '1 100%', 'Bake time between waves': '600' });
  await one.locator('.summary').getByText('waiting').waitFor();
  await one.locator('code').getByText('baking').waitFor();
  const two = await one.context().newPage();
  watch(two, server);
  await two.goto(one.url());
  await two.locator('.summary').getByText('waiting').waitFor();

  await one.getByRole('button', { name: 'Pause' }).click();
  await two.locator('.summary').getByText('paused').waitFor();
  await two.getByRole('button', { name: 'Resume' }).click();
  await one.locator('.summary').getByText('waiting').waitFor();
  await one.getByRole('link', { name: 'Abort' }).click();
  await one.getByText('3 sites stay where they are').waitFor();
  await one.getByRole('button', { name: 'Abort the rollout' }).click();
  await two.locator('.summary').getByText('aborted').waitFor();
  await one.locator('.summary').getByText('aborted').waitFor();
  assertQuiet(one);
  assertQuiet(two);
});

test('a page reconnects after the server was killed and restarted', async (t) => {
  const server = await fleet(4);
  t.after(() => server.stop());
  const page = await newPage(browser, server);
  await signIn(page, 'ada');
  await start(page, { Waves: '1 100%', 'Bake time between waves': '600' });
  await page.locator('.summary').getByText('waiting').waitFor();
  await page.evaluate(() => { globalThis.loadedOnce = true; });
  // The browser logs each refused connection; a page cannot prevent that.
  page.ignoreConsole = true;
  await server.end('SIGKILL');
  await server.run();
  const { items } = await server.request('GET', '/rollouts');
  await server.request('POST', `/rollouts/${items[0].id}/abort`);
  await page.locator('.summary').getByText('aborted').waitFor();
  assert.equal(await page.evaluate(() => globalThis.loadedOnce), true, 'the page was not loaded again');
});
