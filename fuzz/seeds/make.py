#!/usr/bin/env python3
"""Writes the seeds beside this file: inputs from which the fuzzers start. See ../src for what
each target makes of its bytes."""

import pathlib
import struct

HERE = pathlib.Path(__file__).parent


def write(target: str, name: str, data: bytes) -> None:
    (HERE / target / name).write_bytes(data)


def frame(first: int, payload: bytes, masked: bool) -> bytes:
    bit = 0x80 if masked else 0
    if len(payload) < 126:
        head = bytes([first, bit | len(payload)])
    elif len(payload) < 65536:
        head = struct.pack(">BBH", first, bit | 126, len(payload))
    else:
        head = struct.pack(">BBQ", first, bit | 127, len(payload))
    if not masked:
        return head + payload
    key = b"\x01\x02\x03\x04"
    return head + key + bytes(byte ^ key[i % 4] for i, byte in enumerate(payload))


def stream(masked: bool, lossy: bool, packets: list[tuple[int, int]], frames) -> bytes:
    script = b"".join(struct.pack("<HB", length, fate) for length, fate in packets)
    wire = b"".join(frame(first, payload, masked) for first, payload in frames)
    return bytes([masked | lossy << 1, len(packets)]) + script + wire


MIXED = [
    (0x81, b"hello"),
    (0x01, b"in "),
    (0x89, b"ping"),
    (0x00, b"three "),
    (0x80, b"parts"),
    (0xC2, bytes(200)),
    (0x82, b""),
    (0x8A, b"ping"),
    (0x88, b"\x03\xe8bye"),
]
PLAIN = [(0x81, b"abcd")] * 16

for masked in (False, True):
    side = "client" if masked else "server"
    size = 10 if masked else 6
    write("stream", f"{side}-whole", stream(masked, False, [], MIXED))
    write("stream", f"{side}-bytes", stream(masked, False, [(1, 0)] * 40, MIXED))
    write("stream", f"{side}-again", stream(masked, False, [(7, 1 | 2 << 2), (9, 3 | 4 << 2)] * 6, MIXED))
    lost = [(size, 0)] * 2 + [(size, 2)] + [(size, 0)] * 12
    write("stream", f"{side}-found-again", stream(masked, True, lost, PLAIN))
    write("stream", f"{side}-zeros", stream(masked, True, [(3, 2)] + [(50, 0)] * 5, [(0x82, bytes(400))] + PLAIN))
write("stream", "top-bit", bytes([0, 0]) + b"\x82\x7f\x80" + bytes(40))
write("stream", "endless", bytes([0, 1, 20, 0, 0]) + b"\x82\x7f\x7f" + b"\xff" * 7 + bytes(40))
write("stream", "forbidden", bytes([0, 0]) + b"\xb3\x01a\x09\x00\x8b\x7e\x00\x01a\x88\x01a\x80\x00")

REQUEST = (
    b"GET /chat?token=secret HTTP/1.1\r\nHost: example.org\r\nuser-agent: Test/1\r\n"
    b"Origin: https://example.org\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n"
)
RESPONSE = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nSec-WebSocket-Protocol: chat\r\n\r\n"
)
INTERIM = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
PROXY_1 = b"PROXY TCP4 192.0.2.1 192.0.2.2 56324 443\r\n"
PROXY_2 = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c" + bytes([192, 0, 2, 1, 192, 0, 2, 2, 16, 0, 1, 187])
ESCAPES = b"GET /\x1b[2J HTTP/1.1\r\nHost: a\x1b]0;x\x07\r\nUser-Agent: \xe2\x80\xae\xff\xc2\x9b\r\n\r\n"

HEADS = {
    "request": (0, REQUEST),
    "response": (1, RESPONSE),
    "interim": (1, INTERIM + RESPONSE),
    "proxy-1": (0, PROXY_1 + REQUEST),
    "proxy-2": (0, PROXY_2 + REQUEST),
    "bare-line-feeds": (0, b"GET / HTTP/1.1\nUpgrade: h2c, WebSocket\n\n"),
    "other": (0, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
}
for name, (kind, head) in HEADS.items():
    write("heads", name, bytes([kind, 6, 1, 3, 8, 30, 32, 33]) + head)


def record(kind: int, direction: int, length: int, fixed: bytes, data: bytes, version: int = 1) -> bytes:
    header = struct.pack("<BBBxIIIQ", version, kind, direction, 7, 3, length, 99)
    whole = header + fixed + data
    return struct.pack("<H", len(whole)) + whole


def head(data: bytes, direction: int, pieces: int) -> bytes:
    size = -(-len(data) // pieces)
    records = b""
    for at in range(0, len(data), size):
        piece = data[at : at + size]
        last = at + size >= len(data)
        records += record(1, direction, len(piece), struct.pack("<II", at, last), piece)
    return records


for name, (kind, data) in {**HEADS, "escapes": (0, ESCAPES)}.items():
    write("records", name, head(data, kind, 1))
write("records", "pieces", head(REQUEST, 1, 3) + head(RESPONSE, 0, 2))
write("records", "cut", head(REQUEST, 1, 3)[:-60])
write("records", "state", record(2, 0, 0, struct.pack("<II", 3, 0), b""))
write("records", "frame", record(3, 1, 6, struct.pack("<QBBB5x", 4, 0x89, 1, 6), b"\x89\x84\x01\x02\x03\x04"))
write("records", "refused", record(9, 0, 0, b"", b"") + record(1, 7, 0, bytes(8), b"") + record(2, 0, 0, b"", b"", 2))
