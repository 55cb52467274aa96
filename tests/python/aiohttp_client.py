"""A client with aiohttp, driven over standard input (see wire.py). aiohttp cannot send a message
in fragments."""

import asyncio

import aiohttp
from aiohttp import WSMsgType, client_proto

import wire

wire.tap(client_proto.ResponseHandler, "client")


class Client(wire.Client):
    session = None

    async def open(self, url, deflate):
        if self.session:
            await self.session.close()
        self.session = aiohttp.ClientSession()
        try:
            self.web_socket = await self.session.ws_connect(
                url, compress=15 if deflate else 0, max_msg_size=0, autoping=False
            )
        except aiohttp.WSServerHandshakeError as refused:
            return refused.status
        self.reader = asyncio.create_task(self.read(self.web_socket))
        return 101

    async def read(self, web_socket):
        while True:
            message = await web_socket.receive()
            if message.type in (WSMsgType.TEXT, WSMsgType.BINARY):
                await self.note(messages=self.messages + 1)
            elif message.type == WSMsgType.PING:
                await web_socket.pong(message.data)
            elif message.type == WSMsgType.PONG:
                await self.note(pongs=self.pongs + 1)
            elif message.type == WSMsgType.CLOSING:
                return  # Whoever asked to close waits for the end of it.
            else:
                await self.note(closed={"code": web_socket.close_code})
                return

    async def send(self, data, kind):
        if kind == "text":
            await self.web_socket.send_str(data.decode())
        else:
            await self.web_socket.send_bytes(data)

    async def ping(self, payload):
        want = self.pongs + 1
        await self.web_socket.ping(payload)
        await self.until(lambda: self.pongs == want)

    async def close(self, code, reason):
        await self.web_socket.close(code=code, message=reason.encode())
        await self.note(closed={"code": self.web_socket.close_code})


async def main():
    await wire.serve(Client().answer)


asyncio.run(main())
