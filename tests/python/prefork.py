"""An echo server with the `websockets` package whose workers are forked before anybody connects.
Usage: python prefork.py ADDRESS PORT. Prints the workers' process ids."""

import asyncio
import ctypes
import os
import signal
import socket
import sys

from websockets.asyncio.server import serve

import wire

WORKERS = 3
PR_SET_PDEATHSIG = 1


async def echo(web_socket):
    async for message in web_socket:
        await web_socket.send(message)


async def work(listener):
    async with serve(echo, sock=listener, ping_interval=None, compression=None):
        await asyncio.get_running_loop().create_future()


def main():
    address, port = sys.argv[1:]
    listener = socket.create_server((address, int(port)), backlog=100)
    workers = []
    for _ in range(WORKERS):
        worker = os.fork()
        if worker == 0:
            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            asyncio.run(work(listener))
        workers.append(worker)
    wire.say({"ready": True, "workers": workers})
    sys.stdin.read()


main()
