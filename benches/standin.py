"""A stand-in for a Docker daemon that takes contexts and builds nothing: what is measured is the client alone.

    python benches/standin.py SOCKET

For each context that arrives, one line of JSON: when its last byte was there (of the clock that all processes share),
and how many bytes came. The build then fails, which ends the client.
"""

from __future__ import annotations

import json
import socket
import socketserver
import sys
import time
from pathlib import Path

BLOCK = 1 << 20
HEADERS = "Api-Version: 1.41\r\nOstype: linux\r\nBuilder-Version: 1\r\nServer: Docker/20.10.24 (linux)\r\n"
END_OF_BODY = b"\r\n0\r\n\r\n"
VERSION = {"Version": "20.10.24", "ApiVersion": "1.41", "MinAPIVersion": "1.12", "Os": "linux", "Arch": "amd64"}
ENOUGH = {"error": "the stand-in builds nothing", "errorDetail": {"message": "the stand-in builds nothing"}}


class Connection(socketserver.BaseRequestHandler):
    """One connection of a client."""

    request: socket.socket

    def handle(self) -> None:
        waiting = b""
        while True:
            while b"\r\n\r\n" not in waiting:
                more = self.request.recv(BLOCK)
                if not more:
                    return
                waiting += more
            head, _, waiting = waiting.partition(b"\r\n\r\n")
            method, path, *_ = head.decode().split()
            if method == "POST" and "/build?" in path:
                self.take(waiting)
                self.answer(ENOUGH)
                return
            self.answer("OK" if path.endswith("/_ping") else VERSION)

    def take(self, first: bytes) -> None:
        """Reads a body in chunks to its end."""
        buffer, tail, count = bytearray(BLOCK), first[-len(END_OF_BODY) :], len(first)
        while tail != END_OF_BODY:
            length = self.request.recv_into(buffer)
            if length == 0:
                return
            count += length
            tail = (tail + buffer[max(0, length - len(END_OF_BODY)) : length])[-len(END_OF_BODY) :]
        print(json.dumps({"ended": time.monotonic(), "size": count}), flush=True)

    def answer(self, content: object) -> None:
        """Sends a whole response."""
        body = content.encode() if isinstance(content, str) else json.dumps(content).encode()
        head = f"HTTP/1.1 200 OK\r\n{HEADERS}Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        self.request.sendall(head.encode() + body)


class Server(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True


def main() -> None:
    Path(sys.argv[1]).unlink(missing_ok=True)
    with Server(sys.argv[1], Connection) as server:
        print("ready", flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main()
