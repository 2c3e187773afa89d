// Every page, light and dark, wide and narrow: screenshots, layout checks and axe-core.

import { after, before, test } from 'node:test';
import { join } from 'node:path';

import { assertAccessible, assertQuiet, assertTidy, newPage, open, signIn } from './browser.mjs';
import { PASSWORD, QUICK, Server } from './server.mjs';
import { code } from './totp.mjs';

const image = (letter) => `sha256:${(letter + '09af5b7d3').repeat(7).slice(0, 64)}`;
let browser;
let server;
const pages = {};

// A platform after some time in use: sites in all states, releases with verdicts, rollouts of all kinds.
before(async () => {
  [browser, server] = await Promise.all([open(), Server.start(QUICK)]);
  const request = (...args) => server.request(...args);
  await server.user('ada', 'admin');
  await server.user('grace@example.com', 'operator');
  await request('POST', '/services?wait=30s', { imageTag: image('a'), service: 'blue' });
  const names = { bakery: 'The corner bakery', bookshop: 'Read & Co.', florist: 'Roses, roses, roses', museum: 'Museum of small things',
    pharmacy: 'Pharmacy at the harbor', school: 'Music school', tailor: 'Needle and thread', 'a-rather-long-name-of-32-letters': 'A site whose name is as long as it may be, and whose title takes some space as well' };
  for (const [id, name] of Object.entries(names)) await server.live(id, { name });
  await server.site('vineyard', { name: 'Vineyard', hostnames: ['vineyard.example.com', 'www.vineyard.example.com'], canonicalHostname: 'www.vineyard.example.com' });
  await request('POST', '/services?wait=30s', { imageTag: image('b'), service: 'green' });
  await request('POST', '/services', { selector: 'green' });
  await request('POST', `/services/history/${image('b')}`, { verdict: 'healthy', reason: 'a week without complaint' });
  // Starts a rollout and waits for its status.
  const rollout = async (status, body) => {
    const { id } = await request('PUT', '/services', { promote: true, ...body });
    return server.until(`/rollouts/${id}`, (rollout) => rollout.status === status);
  };
  await rollout('succeeded', { scope: { sites: ['bakery', 'bookshop'] } });
  await server.declare(image('c'), 'failing');
  const failed = await rollout('failed', { scope: 'inactive', imageTag: image('c'), gate: { path: '/' }, waves: ['2', '100%'], autoRollback: true });
  await request('POST', '/services/rollback?wait=30s', { service: 'green' });
  await server.declare(image('e'), 'no-themes');
  await request('POST', '/services?wait=30s', { imageTag: image('e'), service: 'blue' });
  await server.site('workshop', { name: 'The workshop', service: 'blue' });
  await request('POST', '/sites/workshop/provision');
  const { items: parked } = await server.until('/operations?status=parked', ({ items }) => items.length === 1);
  await request('PUT', '/sites/florist/upgrade?wait=30s');
  await request('POST', '/freezes', { reason: 'the sale of the year', sites: ['museum'], expiresAt: '2099-12-31T00:00:00Z' });
  // A rollout that has completed two of its waves.
  const tenants = Array.from({ length: 40 }, (_, index) => `tenant-${String(index + 1).padStart(2, '0')}`);
  await Promise.all(tenants.map((id) => server.live(id, { service: 'green' })));
  await request('POST', '/services', { selector: 'blue' });
  const { id: slow } = await request('PUT', '/services', { promote: true, scope: 'inactive', waves: ['2', '50%', '100%'], bake: 2 });
  await server.until(`/rollouts/${slow}`, ({ status, waves }) => status === 'waiting' && waves[1].pending === 0);
  await request('POST', `/rollouts/${slow}/pause`);
  const waiting = await server.until(`/rollouts/${slow}`, ({ status }) => status === 'paused');
  Object.assign(pages, {
    services: '/console/services',
    sites: '/console/sites',
    nothing: '/console/sites?q=nothing-like-that',
    site: '/console/sites/florist',
    'site-parked': '/console/sites/workshop',
    create: '/console/sites/create',
    terminate: '/console/sites/florist/terminate',
    frozen: '/console/sites/museum/promote',
    rollouts: '/console/rollouts',
    rollout: `/console/rollouts/${waiting.id}`,
    'rollout-failed': `/console/rollouts/${failed.id}`,
    start: '/console/rollouts/start',
    abort: `/console/rollouts/${waiting.id}/abort`,
    operations: '/console/operations',
    operation: `/console/operations/${parked[0].id}`,
    audit: '/console/audit',
    deploy: '/console/services/blue/deploy',
    select: '/console/services/blue/select',
    rollback: '/console/services/blue/rollback',
    mark: `/console/services/green/mark/${image('b')}`,
    account: '/console/account',
  });
});
after(async () => {
  await browser.close();
  await server.stop();
});

for (const colorScheme of ['light', 'dark']) {
  for (const [name, width] of [['wide', 1280], ['narrow', 390]]) {
    test(`every page is tidy and accessible, ${colorScheme} and ${name}`, async () => {
      const page = await newPage(browser, server, { colorScheme, viewport: { width, height: 800 } });
      const check = async (of) => {
        await page.screenshot({ path: join(process.env.CDM_SCREENSHOTS, `${of}-${colorScheme}-${name}.png`), fullPage: true });
        await assertTidy(page, of);
        await assertAccessible(page, of);
      };
      await page.goto('/');
      await check('sign-in');
      await signIn(page, 'ada');
      for (const [of, path] of Object.entries(pages)) {
        await page.goto(path);
        await check(of);
      }
      await page.goto('/console/rollouts/start');
      await page.getByRole('button', { name: 'Show the plan' }).click();
      await page.getByText('The first').click();
      await check('plan');
      await page.goto('/console/account/second-factor');
      await check('second-factor');
      const key = await page.locator('#secret').innerText();
      await page.getByLabel('Code from the app').fill(code(key, 0));
      await page.getByLabel('Your password').fill(PASSWORD);
      await page.getByRole('button', { name: 'Set up the second factor' }).click();
      await page.getByRole('heading', { name: 'Recovery codes' }).waitFor();
      await check('recovery-codes');
      await page.goto('/console/account');
      await check('account-with-second-factor');
      await page.getByRole('button', { name: 'Sign out' }).click();
      await page.waitForURL('**/console/sign-in');
      await page.getByLabel('Name').fill('ada');
      await page.getByLabel('Password').fill(PASSWORD);
      await page.getByRole('button', { name: 'Sign in' }).click();
      await page.getByText('Signing in as').waitFor();
      await check('sign-in-code');
      await page.getByLabel('Code').fill(code(key, 1));
      await page.getByRole('button', { name: 'Sign in' }).click();
      await page.waitForURL('**/console/services');
      await page.goto('/console/account');
      await page.getByLabel('Password to remove the second factor').fill(PASSWORD);
      await page.getByRole('button', { name: 'Remove the second factor' }).click();
      await page.getByRole('link', { name: 'Set up a second factor' }).waitFor();
      assertQuiet(page);
      page.ignoreConsole = true;
      await page.goto('/console/sites/create');
      await page.getByLabel('Id').fill('No');
      await page.getByLabel('Title').fill('x');
      await page.getByLabel('Theme').fill('x y');
      await page.getByLabel('Hostnames').fill('nope');
      await page.getByRole('button', { name: 'Create the site' }).click();
      await page.locator('#id-problem').waitFor();
      await check('create-refused');
      await page.goto('/console/sites/unknown');
      await check('missing');
      await page.context().close();
    });
  }
}
