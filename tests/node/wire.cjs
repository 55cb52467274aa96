// Counts the frames in the bytes that this program's sockets write and read, and speaks the
// protocol of the tests: one JSON request per line on standard input, one JSON answer per line.
'use strict';
const readline = require('node:readline');

const OPCODES = { 0: 'continuation', 1: 'text', 2: 'binary', 8: 'close', 9: 'ping', 10: 'pong' };
const counts = {};

function add(key, count) {
  if (count) counts[key] = (counts[key] || 0) + count;
}

/** One direction of a connection; `head` if an HTTP head comes first. */
class Stream {
  constructor(direction, head) {
    this.direction = direction;
    this.head = head;
    this.pending = Buffer.alloc(0);
    this.rest = 0;
    this.message = null;
    this.ends = null;
  }

  push(bytes) {
    let data = this.pending.length ? Buffer.concat([this.pending, bytes]) : bytes;
    if (this.head) {
      const end = data.indexOf('\r\n\r\n');
      if (end < 0) {
        this.pending = data;
        return;
      }
      data = data.subarray(end + 4);
      this.head = false;
    }
    let at = 0;
    for (;;) {
      const skip = Math.min(this.rest, data.length - at);
      at += skip;
      this.rest -= skip;
      if (this.rest) break;
      if (this.ends) {
        add(`${this.direction}.messages.${this.ends.type}`, 1);
        add(`${this.direction}.compressed`, this.ends.compressed ? 1 : 0);
        this.ends = null;
      }
      const left = data.length - at;
      if (left < 2) break;
      const [first, second] = [data[at], data[at + 1]];
      const short = second & 0x7f;
      const header = 2 + (short === 126 ? 2 : short === 127 ? 8 : 0) + (second & 0x80 ? 4 : 0);
      if (left < header) break;
      const length =
        short === 126 ? data.readUInt16BE(at + 2)
        : short === 127 ? Number(data.readBigUInt64BE(at + 2))
        : short;
      at += header;
      this.rest = length;
      const opcode = OPCODES[first & 15] || 'reserved';
      add(`${this.direction}.frames.${opcode}`, 1);
      add(`${this.direction}.payload`, length);
      add(`${this.direction}.wire`, header + length);
      if (opcode === 'text' || opcode === 'binary') {
        this.message = { type: opcode, compressed: !!(first & 0x40) };
      } else if (opcode !== 'continuation') continue;
      if (first & 0x80) [this.ends, this.message] = [this.message, null];
    }
    // A copy: the socket's read buffer is not kept alive for a few bytes.
    this.pending = Buffer.from(data.subarray(at));
  }
}

/** Counts what passes through a socket from now on. */
function tap(socket, role) {
  const sent = new Stream('sent', role === 'server');
  const received = new Stream('received', false);
  const { write, emit } = socket;
  socket.write = function (data, ...rest) {
    sent.push(typeof data === 'string' ? Buffer.from(data, 'latin1') : Buffer.from(data));
    return write.call(this, data, ...rest);
  };
  socket.emit = function (event, ...rest) {
    if (event === 'data') received.push(rest[0]);
    return emit.call(this, event, ...rest);
  };
}

function say(answer) {
  process.stdout.write(JSON.stringify(answer) + '\n');
}

/** Answers requests in the order they come, until standard input ends. */
function serve(answer) {
  let last = Promise.resolve();
  readline
    .createInterface({ input: process.stdin })
    .on('line', (line) => {
      last = last.then(async () => {
        try {
          const request = JSON.parse(line);
          say(request.do === 'ledger' ? counts : (await answer(request)) || {});
        } catch (error) {
          say({ error: String(error.stack || error) });
        }
      });
    })
    .on('close', () => process.exit(0));
}

/** Resolves to the first `event`, or throws after 30 seconds. */
function within(promise, what) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`no ${what} in 30 s`)), 30000);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

module.exports = { tap, say, serve, within };
