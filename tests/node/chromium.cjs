// Chromium as a client, driven over standard input (see wire.cjs). A page on localhost fetches
// each request from here, does it, and posts the answer. Usage: node chromium.cjs PROFILE
'use strict';
const http = require('node:http');
const fs = require('node:fs');
const path = require('node:path');
const { spawn } = require('node:child_process');
const { say, serve, within } = require('./wire.cjs');

const [profile] = process.argv.slice(2);
let asked; // the page waits for a request
let pending; // a request waits for the page
let answered;

const page = fs.readFileSync(path.join(__dirname, 'page.html'));
const server = http.createServer((request, response) => {
  if (request.url === '/next') {
    asked = response;
    deliver();
  } else if (request.url === '/answer') {
    let body = '';
    request.on('data', (part) => { body += part; });
    request.on('end', () => { response.end(); answered(JSON.parse(body)); });
  } else {
    response.writeHead(200, { 'content-type': 'text/html' });
    response.end(request.url === '/' ? page : '');
  }
});
server.requestTimeout = 0;

function deliver() {
  if (!asked || !pending) return;
  asked.end(JSON.stringify(pending));
  asked = pending = undefined;
}

server.listen(0, '127.0.0.1', () => {
  const browser = spawn('chromium', [
    '--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run',
    '--disable-background-networking', '--disable-component-update', '--disable-sync',
    '--disable-default-apps', '--disable-extensions', '--disable-dev-shm-usage',
    `--user-data-dir=${profile}`, `http://127.0.0.1:${server.address().port}/`,
  ], { stdio: ['ignore', 'ignore', 'ignore'] });
  browser.on('exit', () => process.exit(1));
  process.on('exit', () => browser.kill('SIGKILL'));
});

serve(async (request) => {
  const answer = within(new Promise((resolve) => { answered = resolve; }), 'answer of the page');
  pending = request;
  deliver();
  const result = await answer;
  if (result.error) throw new Error(result.error);
  return result;
});
say({ ready: true });
