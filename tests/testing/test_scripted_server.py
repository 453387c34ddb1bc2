"""The server that answers as a test says."""

from __future__ import annotations

import socket
import struct

import pytest

from tests.waiting import wait_until
from wgtorch.testing import Reply, ScriptedServer


@pytest.mark.parametrize("reset", [False, True])
def test_it_knows_who_left_before_the_end(reset: bool) -> None:
    with ScriptedServer() as server:
        server.script(Reply("a long answer that never ends", drip=0.3))
        with _asked(server) as client:
            assert client.recv(1)
            if reset:  # closed with no word of it, so that the next write fails
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        wait_until(lambda: server.requests and server.requests[0].ended)
        assert server.requests[0].left


def test_who_stays_did_not_leave() -> None:
    with ScriptedServer() as server:
        server.script(Reply("cut", cut=5))
        with _asked(server) as client:
            while client.recv(4096):
                pass
        assert not server.requests[0].left


def test_an_answer_comes_once_what_it_waits_for_is_true() -> None:
    with ScriptedServer(lambda seen: Reply("here", until=lambda: server.most_at_once == 2)) as server, _asked(server) as first:
        wait_until(lambda: server.requests)
        assert server.requests[0].ended is None
        with _asked(server) as second:
            assert first.recv(12) == second.recv(12) == b"HTTP/1.1 200"


def _asked(server: ScriptedServer) -> socket.socket:
    client = socket.create_connection(("127.0.0.1", int(server.anthropic_url.rpartition(":")[2])))
    client.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}")
    return client
