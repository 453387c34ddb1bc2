"""``wgtorch serve``: a graph, pipeline, stage or world as an HTTP service."""

from __future__ import annotations

import argparse
import os
from ipaddress import ip_address
from typing import Any

from wgtorch.cli.target import CommandError, name_of, open_level, trust_in, values
from wgtorch.core.errors import require
from wgtorch.core.level import Level

KEY = "WGTORCH_API_KEY"
"""The environment variable that holds the key of a server, unless another is named."""


def command(args: argparse.Namespace) -> int:
    """Serves what ``args.target`` names until it is interrupted."""
    for module in ("starlette", "uvicorn"):
        require(module, "serve")
    from wgtorch.serving.server import Limits, serve

    key = api_key(args.api_key_env, args.host, is_open=args.open)
    level = open_level(args.target, values(args.set), trust=trust_in(args.trust))
    if args.device is not None:
        level.to(args.device)
    name = name_of(args.target)
    limits = Limits(
        max_bytes=args.max_mib << 20,
        timeout=args.timeout,
        concurrency=args.concurrency,
        max_batch=args.max_batch,
        sessions=args.max_sessions,
    )

    def ready(url: str) -> None:
        print(_hello(level, name, url, key is not None), flush=True)

    options = {"cors": args.cors, "sessions_dir": args.sessions_dir, "device": args.device, "name": name}
    serve(level, host=args.host, port=args.port, ready=ready, api_key=key, limits=limits, **options)
    return 0


def api_key(variable: str | None, host: str, *, is_open: bool) -> str | None:
    """The key that callers must show.

    Args:
        variable: the environment variable that was asked for; ``WGTORCH_API_KEY`` where none was.
        host: where the server will listen.
        is_open: let everybody in, from everywhere.

    Raises:
        CommandError: the variable is empty, or other machines could call a server without a key.
    """
    key = os.environ.get(variable or KEY) or None
    if variable is not None and key is None:
        raise CommandError(f"--api-key-env: the variable {variable} is not set; put the key there")
    if key is None and not is_open and not _is_here(host):
        raise CommandError(f"--host {host}: other machines could call this server; set {KEY} to a key, or add --open to let them")
    return None if is_open and variable is None else key


def _is_here(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _hello(level: Level | Any, name: str, url: str, has_key: bool) -> str:
    rows = [f"Serving {level.level} {name} at {url}{' (with a key)' if has_key else ''}"]
    from wgtorch.serving.contracts import contract_of
    from wgtorch.serving.openai_tasks import tasks_of

    pages = ["POST /run", "GET /docs", "GET /spec", "GET /health", "GET /openapi.json"]
    front = {
        "generations": "POST /v1/images/generations", "edits": "POST /v1/images/edits",
        "chat": "POST /v1/chat/completions", "embeddings": "POST /v1/embeddings",
    }  # fmt: skip
    pages += [front[name] for name in tasks_of(contract_of(level))]
    pages += ["POST /sessions"] if level.level == "world" else []
    rows += [f"  {what}" for what in pages]
    if level.level != "world":
        rows.append(f"As a node elsewhere: {{endpoint_url: {url}}}")
    return "\n".join(rows)
