// A client with the `ws` package, driven over standard input (see wire.cjs).
'use strict';
const WebSocket = require('ws');
const { tap, serve, within } = require('./wire.cjs');

let webSocket;
let messages = [];
let pongs = 0;
let closed;
const waiting = [];

function changed() {
  for (const check of waiting.splice(0)) check();
}

async function until(condition, what) {
  await within(
    (async () => {
      while (!condition()) await new Promise((resolve) => waiting.push(resolve));
    })(),
    what,
  );
}

function open({ url, deflate }) {
  [messages, pongs, closed] = [[], 0, undefined];
  webSocket = new WebSocket(url, {
    perMessageDeflate: deflate ? { threshold: 0 } : false,
    maxPayload: 1 << 28,
  });
  webSocket.on('upgrade', (response) => tap(response.socket, 'client'));
  webSocket.on('message', (data) => { messages.push(data.length); changed(); });
  webSocket.on('pong', () => { pongs += 1; changed(); });
  webSocket.on('close', (code, reason) => { closed = { code, reason: String(reason) }; changed(); });
  webSocket.on('error', () => {});
  return within(
    new Promise((resolve) => {
      webSocket.on('open', () => resolve({ status: 101 }));
      webSocket.on('unexpected-response', (request, response) => {
        response.resume();
        response.on('end', () => { request.destroy(); resolve({ status: response.statusCode }); });
      });
    }),
    'handshake',
  );
}

async function answer(request) {
  const { size, count = 1, type, text, code, reason } = request;
  const options = { binary: type === 'binary' };
  const before = messages.length;
  switch (request.do) {
    case 'open':
      return open(request);
    case 'send': {
      const data = Buffer.alloc(size, 'x');
      for (let sent = 0; sent < count; sent++) webSocket.send(data, options);
      return until(() => messages.length === before + count, 'echo');
    }
    case 'fragments':
      for (let sent = 1; sent <= count; sent++) {
        webSocket.send(Buffer.alloc(size, 'x'), { ...options, fin: sent === count });
      }
      return until(() => messages.length === before + 1, 'echo');
    case 'command':
      webSocket.send(text);
      return until(() => messages.length === before + (request.expect || 0), 'message');
    case 'ping': {
      const want = pongs + 1;
      webSocket.ping(text);
      return until(() => pongs === want, 'pong');
    }
    case 'close':
      webSocket.close(code, reason);
      await until(() => closed, 'close');
      return closed;
    case 'await_close':
      await until(() => closed, 'close');
      return closed;
    default:
      throw new Error(`cannot ${request.do}`);
  }
}

serve(answer);
