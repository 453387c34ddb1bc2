"""``wgtorch play``: a world on a page in the browser."""

from __future__ import annotations

import argparse
import os
import secrets
import socket
from pathlib import Path

from wgtorch.cli.run import holds_life, place_states, run_folder
from wgtorch.cli.target import CommandError, name_of, open_level, trust_in, values
from wgtorch.core.errors import require
from wgtorch.world import World

_TOKEN = "play_token"  # in the folder, so that an open page finds the server again after a restart
_FORKS = "branches"


def command(args: argparse.Namespace) -> int:
    """Serves the page of the world that ``args.target`` names until it is interrupted."""
    for module in ("starlette", "uvicorn"):
        require(module, "serve")
    from wgtorch.play import Game, make_play_app
    from wgtorch.serving.server import EVERYWHERE, serve_app

    world = open_level(args.target, values(args.set), trust=trust_in(args.trust))
    if not isinstance(world, World):
        raise CommandError(f"{args.target}: is a {world.level}; expected a world, which can be played")
    folder = run_folder(args.target, world, args.out)
    folder.mkdir(parents=True, exist_ok=True)
    place_states(world, folder, resume=holds_life(world, folder))
    token = token_in(folder)
    hosts = [*args.allow_host, socket.gethostname() if args.host in EVERYWHERE else args.host]
    game = Game(world, seed=args.seed, folder=folder / _FORKS)
    game.tell()
    game.begin()
    app = make_play_app(game, token=token, hosts=hosts)

    def ready(url: str) -> None:
        print(f"Play {name_of(args.target)}: {url}/?token={token}", flush=True)
        print(f"The life is kept in {folder}; to go on with it: --out {folder}", flush=True)

    serve_app(app, host=args.host, port=args.port, ready=ready, patience=1)
    return 0


def token_in(folder: Path) -> str:
    """The secret of a folder's sessions, which only its owner can read; made when there is none."""
    path = folder / _TOKEN
    if path.is_file():
        found = path.read_text(encoding="ascii").strip()
        if len(found) >= 20:
            return found
        raise CommandError(f"{path}: holds no token; delete the file to have a new one made")
    made = secrets.token_urlsafe(24)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as file:
        file.write(made + "\n")
    return made
