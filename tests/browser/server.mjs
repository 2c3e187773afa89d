// Runs a real `cdm-server` in a temporary directory and calls its REST API. The process is ended by its id.

import { spawn } from 'node:child_process';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { get } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';

const BINARY = process.env.CDM_SERVER_BINARY;
export const ADMIN = 'an-administrator-of-the-browser-0123456789';

// Fast pods and jobs.
export const QUICK = '[local]\npod_start_ms = 20\nprogress_deadline_ms = 1500\njob_ms = 20\n\n[limits]\nrate = 100000\nburst = 100000\nfailures = 100000\n';
// Jobs that run long enough to be visible.
export const SLOW = QUICK.replace('job_ms = 20', 'job_ms = 700');

export class Server {
  constructor(directory, configuration) {
    this.directory = directory;
    this.configuration = configuration;
    this.listen = '127.0.0.1:0';
    this.routes = '127.0.0.1:0';
  }

  static async start(configuration = QUICK) {
    const server = new Server(await mkdtemp(join(tmpdir(), 'cdm-console-')), configuration);
    await writeFile(join(server.directory, 'cdm.toml'), configuration);
    await server.run();
    return server;
  }

  // Starts the process and waits until it logs its addresses. A restart uses the addresses of the first start.
  async run() {
    const inherited = Object.entries(process.env).filter(([name]) => !name.startsWith('CDM_'));
    const env = {
      ...Object.fromEntries(inherited),
      CDM_LISTEN: this.listen,
      CDM_ROUTER_LISTEN: this.routes,
      CDM_DATA_DIR: join(this.directory, 'data'),
      CDM_ADMIN_TOKEN: ADMIN,
      CDM_LOG_FORMAT: 'json',
    };
    const child = spawn(BINARY, ['--config', join(this.directory, 'cdm.toml')], { env, stdio: ['ignore', 'pipe', 'pipe'] });
    this.child = child;
    this.log = '';
    createInterface({ input: child.stdout }).on('line', (line) => {
      if (line.includes('/console/setup/')) this.setup = line.trim();
    });
    await new Promise((listening, failed) => {
      child.once('exit', (code) => failed(new Error(`the server ended with ${code}:\n${this.log}`)));
      createInterface({ input: child.stderr }).on('line', (line) => {
        this.log += `${line}\n`;
        const fields = line.startsWith('{') ? (JSON.parse(line).fields ?? {}) : {};
        // The access log has a field `address` too, the client's.
        if (fields.address && fields.message.includes('the API')) this.listen = fields.address;
        if (fields.router) this.routes = fields.router;
        if (fields.router) listening();
      });
    });
    this.url = `http://${this.listen}`;
    this.router = `http://${this.routes}`;
  }

  async end(signal = 'SIGTERM') {
    const exited = new Promise((ended) => this.child.once('exit', ended));
    if (this.child.exitCode === null && this.child.signalCode === null) {
      this.child.kill(signal);
      await exited;
    }
  }

  async stop() {
    await this.end();
    await rm(this.directory, { recursive: true, force: true });
  }

  // Sends a request to the REST API as an administrator.
  async request(method, path, body) {
    const headers = { authorization: `Bearer ${ADMIN}` };
    if (body !== undefined) headers['content-type'] = 'application/json';
    const response = await fetch(this.url + path, { method, headers, body: body && JSON.stringify(body) });
    const text = await response.text();
    if (!response.ok) throw new Error(`${method} ${path}: ${response.status} ${text}`);
    return text.startsWith('{') ? JSON.parse(text) : text;
  }

  // Returns the page that a visitor of a site gets.
  visit(host) {
    return new Promise((read, failed) => {
      const request = get(this.router, { headers: { host } }, (response) => {
        let text = '';
        response.setEncoding('utf8').on('data', (part) => { text += part; }).on('end', () => read(text));
      });
      request.on('error', failed);
    });
  }

  // Polls the API until the response satisfies the condition.
  async until(path, condition) {
    for (;;) {
      const response = await this.request('GET', path);
      if (condition(response)) return response;
      await new Promise((elapsed) => setTimeout(elapsed, 20));
    }
  }

  async user(name, role) {
    await this.request('POST', '/users', { name, role, password: PASSWORD });
  }

  async site(id, more = {}) {
    const hosts = { hostnames: [`${id}.example.com`], canonicalHostname: `${id}.example.com` };
    await this.request('POST', '/sites/create', { id, name: `Site ${id}`, theme: 'twentytwentyfive', ...hosts, ...more });
  }

  async live(id, more = {}) {
    await this.site(id, more);
    await this.request('POST', `/sites/${id}/provision?wait=30s`);
  }

  // Declares the behavior of an image on the local cluster.
  async declare(digest, behavior) {
    const cdm = spawn(process.env.CDM_BINARY, ['local', 'image', digest, `--${behavior}`, '--data-dir', join(this.directory, 'data')]);
    const code = await new Promise((ended) => cdm.once('exit', ended));
    if (code !== 0) throw new Error(`cdm local image ended with ${code}`);
  }
}

export const PASSWORD = 'correct horse battery';
