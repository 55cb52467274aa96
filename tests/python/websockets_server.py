"""A server with the `websockets` package; see node/server.cjs for what it does.
Usage: python websockets_server.py ADDRESS PORT [deflate]"""

import asyncio
import sys

from websockets.asyncio import connection
from websockets.asyncio.server import serve
from websockets.exceptions import ConnectionClosed

import wire

wire.tap(connection.Connection, "server")


async def handle(web_socket):
    try:
        async for message in web_socket:
            if isinstance(message, str) and message.startswith("!"):
                await command(web_socket, message[1:])
            else:
                await web_socket.send(message)
    except ConnectionClosed:
        pass


async def command(web_socket, text):
    name, *words = text.split(" ")
    if name == "ping":
        await web_socket.ping(" ".join(words))
    elif name == "close":
        await web_socket.close(int(words[0]), " ".join(words[1:]))
    else:
        count, size, kind = int(words[0]), int(words[1]), words[2]
        data = "x" * size if kind == "text" else b"x" * size
        if name == "send":
            for _ in range(count):
                await web_socket.send(data)
        else:
            await web_socket.send([data] * count)


def process_request(web_socket, request):
    if request.path.startswith("/reject/"):
        return web_socket.respond(int(request.path.split("/")[2]), "no\n")
    return None


async def main():
    address, port, *deflate = sys.argv[1:]
    async with serve(
        handle,
        address,
        int(port),
        process_request=process_request,
        compression="deflate" if deflate else None,
        ping_interval=None,
        max_size=None,
    ):
        wire.say({"ready": True})
        await wire.serve(wire.nothing)


asyncio.run(main())
