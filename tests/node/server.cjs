// A server with the `ws` package. Usage: node server.cjs ADDRESS PORT [deflate]
//
// Messages come back as they are, but for texts that begin with `!`:
//   !send COUNT SIZE TYPE, !fragments COUNT SIZE TYPE, !ping PAYLOAD, !close CODE REASON
// /reject/STATUS answers an upgrade with that status, a plain GET gets 200.
'use strict';
const http = require('node:http');
const { WebSocketServer } = require('ws');
const { tap, say, serve } = require('./wire.cjs');

const [address, port, deflate] = process.argv.slice(2);
const webSockets = new WebSocketServer({
  noServer: true,
  perMessageDeflate: deflate ? { threshold: 0 } : false,
});

const server = http.createServer((request, response) => {
  response.writeHead(200, { 'content-type': 'text/plain' });
  response.end('plain\n');
});
server.keepAliveTimeout = 30000;

server.on('upgrade', (request, socket, head) => {
  socket.on('error', () => {});
  const reject = request.url.match(/^\/reject\/(\d+)/);
  if (reject) {
    const status = Number(reject[1]);
    socket.end(`HTTP/1.1 ${status} ${http.STATUS_CODES[status]}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n`);
    return;
  }
  tap(socket, 'server');
  webSockets.handleUpgrade(request, socket, head, (webSocket) => {
    webSocket.on('error', () => {});
    webSocket.on('message', (data, binary) => {
      if (!binary && data[0] === 0x21) command(webSocket, data.toString());
      else webSocket.send(data, { binary });
    });
  });
});

function command(webSocket, text) {
  const [name, ...words] = text.slice(1).split(' ');
  const [count, size, type] = [Number(words[0]), Number(words[1]), words[2]];
  const options = { binary: type === 'binary' };
  switch (name) {
    case 'send':
      for (let sent = 0; sent < count; sent++) webSocket.send(Buffer.alloc(size, 'x'), options);
      break;
    case 'fragments':
      for (let sent = 1; sent <= count; sent++) {
        webSocket.send(Buffer.alloc(size, 'x'), { ...options, fin: sent === count });
      }
      break;
    case 'ping':
      webSocket.ping(words.join(' '));
      break;
    case 'close':
      webSocket.close(count, words.slice(1).join(' '));
      break;
    default:
      throw new Error(`unknown command ${name}`);
  }
}

server.listen(Number(port), address, () => say({ ready: true }));
serve(() => ({}));
