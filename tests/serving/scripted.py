"""A peer that answers what it is told to, for what no well-behaved server does."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field


@dataclass
class Peer:
    """What a scripted peer has seen.

    Args:
        url: where it listens.
        requests: heads of the requests, oldest first.
    """

    url: str
    requests: list[str] = field(default_factory=list)


def answer(status: str = "200 OK", content: bytes = b"", kind: str = "application/json", **headers: str) -> bytes:
    """The bytes of an HTTP answer."""
    lines = [f"HTTP/1.1 {status}", f"Content-Type: {kind}", f"Content-Length: {len(content)}", "Connection: close"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + content


@contextmanager
def scripted(*answers: bytes | None) -> Iterator[Peer]:
    """Gives each connection the next answer, the last one for ever; None hangs up without a word."""
    listening = socket.create_server(("127.0.0.1", 0))
    peer = Peer(f"http://127.0.0.1:{listening.getsockname()[1]}")

    def work() -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            with connection, suppress(OSError):
                head = b""
                while b"\r\n\r\n" not in head:
                    head += connection.recv(4096)
                head, _, held = head.partition(b"\r\n\r\n")
                length = next((int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length")), 0)
                while len(held) < length:
                    held += connection.recv(65536)
                peer.requests.append(head.decode())
                reply = answers[min(len(peer.requests), len(answers)) - 1]
                if reply is not None:
                    connection.sendall(reply)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        yield peer
    finally:
        listening.shutdown(socket.SHUT_RDWR)
        listening.close()
        thread.join()
