"""A client with the `websockets` package, driven over standard input (see wire.py)."""

import asyncio

from websockets.asyncio import connection
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

import wire

wire.tap(connection.Connection, "client")


class Client(wire.Client):
    async def open(self, url, deflate):
        try:
            self.web_socket = await connect(
                url,
                compression="deflate" if deflate else None,
                ping_interval=None,
                max_size=None,
                proxy=None,
            )
        except InvalidStatus as refused:
            return refused.response.status_code
        self.reader = asyncio.create_task(self.read(self.web_socket))
        return 101

    async def read(self, web_socket):
        try:
            while True:
                await web_socket.recv()
                await self.note(messages=self.messages + 1)
        except ConnectionClosed:
            await web_socket.wait_closed()
            code, reason = web_socket.close_code, web_socket.close_reason
            await self.note(closed={"code": code, "reason": reason})

    async def send(self, data, kind):
        await self.web_socket.send(data.decode() if kind == "text" else data)

    async def fragments(self, parts, kind):
        await self.web_socket.send([part.decode() if kind == "text" else part for part in parts])

    async def ping(self, payload):
        await (await self.web_socket.ping(payload))

    async def close(self, code, reason):
        await self.web_socket.close(code, reason)


async def main():
    await wire.serve(Client().answer)


asyncio.run(main())
