"""A server with aiohttp; see node/server.cjs for what it does. aiohttp cannot send a message in
fragments. Usage: python aiohttp_server.py ADDRESS PORT [deflate]"""

import asyncio
import sys

from aiohttp import WSMsgType, web, web_protocol

import wire

wire.tap(web_protocol.RequestHandler, "server")
address, port, *deflate = sys.argv[1:]


async def handle(request):
    if request.path.startswith("/reject/"):
        return web.Response(status=int(request.path.split("/")[2]), text="no\n")
    if request.headers.get("upgrade", "").lower() != "websocket":
        return web.Response(text="plain\n")
    web_socket = web.WebSocketResponse(compress=bool(deflate), max_msg_size=0)
    await web_socket.prepare(request)
    async for message in web_socket:
        if message.type == WSMsgType.TEXT and message.data.startswith("!"):
            await command(web_socket, message.data[1:])
        elif message.type == WSMsgType.TEXT:
            await web_socket.send_str(message.data)
        elif message.type == WSMsgType.BINARY:
            await web_socket.send_bytes(message.data)
    return web_socket


async def command(web_socket, text):
    name, *words = text.split(" ")
    if name == "ping":
        await web_socket.ping(" ".join(words).encode())
    elif name == "close":
        await web_socket.close(code=int(words[0]), message=" ".join(words[1:]).encode())
    else:
        count, size, kind = int(words[0]), int(words[1]), words[2]
        for _ in range(count):
            if kind == "text":
                await web_socket.send_str("x" * size)
            else:
                await web_socket.send_bytes(b"x" * size)


async def main():
    application = web.Application()
    application.router.add_get("/{path:.*}", handle)
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, address, int(port)).start()
    wire.say({"ready": True})
    await wire.serve(wire.nothing)


asyncio.run(main())
