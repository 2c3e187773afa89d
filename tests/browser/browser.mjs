// Starts Debian's Chromium and checks what a page must not do.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';

import { PASSWORD } from './server.mjs';

// The modules are installed below cargo's target directory, not in this one.
const modules = createRequire(join(process.env.CDM_BROWSER_PARTS, 'package.json'));
const { chromium } = modules('playwright-core');
const axe = readFileSync(modules.resolve('axe-core/axe.min.js'), 'utf8');

const ARGUMENTS = [
  '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
  '--disable-component-update', '--disable-sync',
];

export async function open() {
  return chromium.launch({ executablePath: process.env.CDM_CHROMIUM, args: ARGUMENTS });
}

// Opens a page in a separate browser profile that records logged errors and requested hosts.
export async function newPage(browser, server, options = {}) {
  const context = await browser.newContext({ baseURL: server.url, viewport: { width: 1280, height: 800 }, ...options });
  const page = await context.newPage();
  page.problems = [];
  page.setDefaultTimeout(20_000);
  watch(page, server);
  return page;
}

export function watch(page, server) {
  page.problems ??= [];
  page.on('console', (message) => {
    if (!page.ignoreConsole) page.problems.push(`${message.type()}: ${message.text()}`);
  });
  page.on('pageerror', (error) => page.problems.push(`error: ${error.message}`));
  page.on('request', (request) => {
    if (!request.url().startsWith(server.url)) page.problems.push(`request to ${request.url()}`);
  });
}

export async function signIn(page, name) {
  await page.goto('/');
  await page.getByLabel('Name').fill(name);
  await page.getByLabel('Password').fill(PASSWORD);
  await page.getByRole('button', { name: 'Sign in' }).click();
  await page.waitForURL('**/console/services');
}

export function assertQuiet(page) {
  assert.deepEqual(page.problems, [], 'the page logs no error and sends no request to another host');
}

// Checks every rule of axe-core, including its best practices.
export async function assertAccessible(page, where) {
  await page.evaluate(axe);
  const found = await page.evaluate(async () => {
    const { violations } = await globalThis.axe.run(document, { resultTypes: ['violations'] });
    return violations.map(({ id, help, nodes }) => ({ id, help, nodes: nodes.map((node) => `${node.html} ${node.failureSummary}`) }));
  });
  assert.deepEqual(found, [], `${where} is accessible`);
}

// Checks that no element is wider than the page, that elements do not overlap, and that no text is cut.
export async function assertTidy(page, where) {
  const wrong = await page.evaluate(() => {
    const problems = [];
    const root = document.documentElement;
    if (root.scrollWidth > root.clientWidth) problems.push(`the page is ${root.scrollWidth - root.clientWidth}px too wide`);
    const isVisible = (element) => element.checkVisibility() && !element.closest('.unseen, .skip, option, svg');
    for (const element of document.querySelectorAll('a, button, h1, h2, h3, p, td, th, label, dd, dt, code, .badge')) {
      if (!isVisible(element)) continue;
      const style = getComputedStyle(element);
      const cut = element.scrollWidth > element.clientWidth + 1 && style.display !== 'inline' && style.overflowX !== 'auto';
      if (cut && element.clientWidth > 0) problems.push(`cut: ${element.outerHTML.slice(0, 120)}`);
    }
    const controls = [...document.querySelectorAll('a, button, input, select, textarea, summary')].filter(isVisible);
    const boxes = controls.map((element) => [element, element.getBoundingClientRect()]);
    for (const [index, [one, a]] of boxes.entries()) {
      for (const [other, b] of boxes.slice(index + 1)) {
        if (one.contains(other) || other.contains(one)) continue;
        const overlap = Math.min(a.right, b.right) - Math.max(a.left, b.left) > 1 && Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 1;
        // The boxes of links in running text may overlap where lines wrap.
        if (overlap && !(getComputedStyle(one).display === 'inline' && getComputedStyle(other).display === 'inline')) {
          problems.push(`overlap: ${one.outerHTML.slice(0, 80)} and ${other.outerHTML.slice(0, 80)}`);
        }
      }
    }
    return problems;
  });
  assert.deepEqual(wrong, [], `${where} is tidy`);
}
