"""Counts the frames in the bytes that this program's asyncio transports write and read, and
speaks the protocol of the tests: one JSON request per line on standard input, one JSON answer
per line on standard output."""

import asyncio
import json
import sys
import traceback
import weakref
from asyncio import selector_events

OPCODES = {0: "continuation", 1: "text", 2: "binary", 8: "close", 9: "ping", 10: "pong"}
HEAD_END = b"\r\n\r\n"

counts = {}


def add(key, count):
    if count:
        counts[key] = counts.get(key, 0) + count


class Stream:
    """One direction."""

    def __init__(self, direction):
        self.direction = direction
        self.pending = bytearray()
        self.rest = 0
        self.message = None
        self.ends = None

    def count(self):
        data, at = self.pending, 0
        while True:
            skip = min(self.rest, len(data) - at)
            at += skip
            self.rest -= skip
            if self.rest:
                break
            if self.ends:
                kind, compressed = self.ends
                add(f"{self.direction}.messages.{kind}", 1)
                add(f"{self.direction}.compressed", int(compressed))
                self.ends = None
            if len(data) - at < 2:
                break
            first, second = data[at], data[at + 1]
            short = second & 0x7F
            extended = {126: 2, 127: 8}.get(short, 0)
            header = 2 + extended + (4 if second & 0x80 else 0)
            if len(data) - at < header:
                break
            length = short
            if extended:
                length = int.from_bytes(data[at + 2 : at + 2 + extended], "big")
            at += header
            self.rest = length
            opcode = OPCODES.get(first & 15, "reserved")
            add(f"{self.direction}.frames.{opcode}", 1)
            add(f"{self.direction}.payload", length)
            add(f"{self.direction}.wire", header + length)
            if opcode in ("text", "binary"):
                self.message = (opcode, bool(first & 0x40))
            elif opcode != "continuation":
                continue
            if first & 0x80:
                self.ends, self.message = self.message, None
        del data[:at]


class Connection:
    """HTTP until a 101 has passed, frames after it."""

    def __init__(self, role):
        self.sent = Stream("sent")
        self.received = Stream("received")
        self.role = role
        self.upgraded = False

    def count(self):
        if not self.upgraded:
            server = self.role == "server"
            request = (self.received if server else self.sent).pending
            response = (self.sent if server else self.received).pending
            status = response.find(b"HTTP/1.1 101")
            end = response.find(HEAD_END, status)
            if status < 0 or end < 0:
                return
            del response[: end + len(HEAD_END)]
            last = request.rfind(HEAD_END)
            del request[: last + len(HEAD_END)]
            self.upgraded = True
        self.sent.count()
        self.received.count()


connections = weakref.WeakKeyDictionary()


def tap(protocol, role):
    """Counts what passes through every transport of this protocol class."""

    transport = selector_events._SelectorSocketTransport
    inside = False

    def counted(original, join):
        def write(self, data):
            nonlocal inside
            if isinstance(self.get_protocol(), protocol) and not inside:
                connection = connections.setdefault(self, Connection(role))
                connection.sent.pending += join(data)
                connection.count()
            outer, inside = inside, True
            try:
                return original(self, data)
            finally:
                inside = outer

        return write

    data_received = protocol.data_received

    def received(self, data):
        connection = connections.setdefault(self.transport, Connection(role))
        connection.received.pending += data
        connection.count()
        return data_received(self, data)

    protocol.data_received = received
    transport.write = counted(transport.write, lambda data: data)
    transport.writelines = counted(
        transport.writelines, lambda parts: b"".join(bytes(part) for part in parts)
    )


def say(answer):
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


async def serve(answer):
    """Answers requests in the order they come, until standard input ends."""

    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        request = json.loads(line)
        try:
            if request["do"] == "ledger":
                say(counts)
            else:
                say(await asyncio.wait_for(answer(request), 30) or {})
        except Exception:
            say({"error": traceback.format_exc()})


async def nothing(_request):
    return {}


class Client:
    """What a driven client does, whatever the library."""

    def __init__(self):
        self.messages = 0
        self.pongs = 0
        self.closed = None
        self.changed = asyncio.Condition()

    async def note(self, **changes):
        async with self.changed:
            for name, value in changes.items():
                setattr(self, name, value)
            self.changed.notify_all()

    async def until(self, condition):
        async with self.changed:
            await self.changed.wait_for(condition)

    async def answer(self, request):
        what = request["do"]
        before = self.messages
        count = request.get("count", 1)
        if what == "open":
            self.messages, self.pongs, self.closed = 0, 0, None
            return {"status": await self.open(request["url"], request.get("deflate", False))}
        if what == "send":
            data = b"x" * request["size"]
            for _ in range(count):
                await self.send(data, request["type"])
            return await self.until(lambda: self.messages == before + count)
        if what == "fragments":
            await self.fragments([b"x" * request["size"]] * count, request["type"])
            return await self.until(lambda: self.messages == before + 1)
        if what == "command":
            await self.send(request["text"].encode(), "text")
            return await self.until(lambda: self.messages == before + request.get("expect", 0))
        if what == "ping":
            return await self.ping(request["text"].encode())
        if what == "close":
            await self.close(request["code"], request["reason"])
            await self.until(lambda: self.closed)
            return self.closed
        if what == "await_close":
            await self.until(lambda: self.closed)
            return self.closed
        raise ValueError(f"cannot {what}")
