"""The program ``wgtorch``: its commands and their options. Each command's work is in the file of its name."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any

_TARGET = "a template's name (default, graph/text_to_image), a YAML or JSON config, or a folder written by save()"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command.

    Args:
        argv: the arguments; those of the process by default.

    Returns:
        0 when all is well, 1 when ``validate`` found something, 2 after a mistake that the message on stderr tells of,
        130 when interrupted.
    """
    args = _parser().parse_args(argv)
    from wgtorch.core.errors import WgtorchError

    try:
        return int(import_module(f"wgtorch.cli.{args.command}").command(args))
    except (WgtorchError, OSError) as error:
        print("\n".join([f"wgtorch {args.command}: {error}", *getattr(error, "__notes__", [])]), file=sys.stderr)
        return 2
    except KeyboardInterrupt as interrupt:
        print("\n".join([f"wgtorch {args.command}: interrupted", *getattr(interrupt, "__notes__", [])]), file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="wgtorch", description="Runs, checks and draws graphs, pipelines and worlds.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    pairs: dict[str, Any] = {"action": "append", "default": [], "type": _pair, "metavar": "NAME=VALUE"}

    of_files = argparse.ArgumentParser(add_help=False)
    of_files.add_argument(
        "--trust",
        action="append",
        default=[],
        metavar="NAME",
        help="environment variable (NAME, PREFIX_*) that a file may read beside WGTORCH_*, or an address that a provider's own key may "
        "be sent to; repeatable",
    )
    about_level = argparse.ArgumentParser(add_help=False, parents=[of_files])
    about_level.add_argument("target", help=_TARGET)
    about_level.add_argument("--set", help="a parameter of the template; repeatable", **pairs)

    run = commands.add_parser("run", parents=[about_level], help="let a world live, or run a graph or a pipeline once")
    run.add_argument("--seed", type=int, help="root of all random draws; a world draws one and tells it when it is left out")
    run.add_argument("--out", metavar="DIR", help="where to write; a new folder outputs/<name>/<number> by default")
    of_worlds = run.add_argument_group("for worlds")
    of_worlds.add_argument("--steps", type=int, metavar="N", help="passes of the cycle (3)")
    of_worlds.add_argument("--action", action="append", default=[], metavar="TEXT", help="what the user does: one for all passes, or each")
    of_worlds.add_argument("--resume", action="store_true", help="go on with the life that --out holds")
    of_tasks = run.add_argument_group("for graphs and pipelines")
    of_tasks.add_argument("--input", help="a value for an input: a text, a file, a number, JSON; repeatable", **pairs)

    train = commands.add_parser("train", help="train what an experiment or a config describes")
    train.add_argument("target", help="an experiment's name, a YAML config, or the folder of a run to do again")
    train.add_argument("overrides", nargs=argparse.REMAINDER, help="Hydra's overrides, as trainer.max_steps=100; -m for a sweep")

    commands.add_parser("validate", parents=[about_level], help="look for everything that would stop a run")

    draw = commands.add_parser("draw", parents=[about_level], help="draw the structure")
    draw.add_argument("--format", choices=("mermaid", "dot", "svg"), help="by the ending of --out when left out, else mermaid")
    draw.add_argument("--out", metavar="FILE", help="write there instead of printing")

    diff = commands.add_parser("diff", parents=[of_files], help="how two levels differ")
    diff.add_argument("first", help=_TARGET)
    diff.add_argument("second", help="the other one")

    templates = commands.add_parser("templates", help="list the templates and their parameters")
    templates.add_argument("--level", choices=("graph", "pipeline", "stage", "world"), help="only those of one level")

    serve = commands.add_parser("serve", parents=[about_level], help="serve it over HTTP: POST /run, GET /spec")
    serve.add_argument("--host", default="127.0.0.1", help="where to listen; other machines need a key (127.0.0.1)")
    serve.add_argument("--port", type=int, default=8000, metavar="N", help="0 takes a free one (8000)")
    serve.add_argument("--api-key-env", metavar="NAME", help="environment variable with the key callers must show (WGTORCH_API_KEY)")
    serve.add_argument("--open", action="store_true", help="let everybody in, from other machines too")
    serve.add_argument("--max-mib", type=int, default=256, metavar="N", help="size of the largest request (256)")
    serve.add_argument("--timeout", type=float, metavar="S", help="seconds that a run may take")
    serve.add_argument("--concurrency", type=int, default=4, metavar="N", help="runs at once (4)")
    serve.add_argument("--max-batch", type=int, default=1, metavar="N", help="rows of concurrent requests that may share a pass (1)")
    serve.add_argument("--device", help="where the model runs (cuda)")

    play = commands.add_parser("play", parents=[about_level], help="play a world on a page in the browser")
    play.add_argument("--host", default="127.0.0.1", help="where to listen; only this machine can call 127.0.0.1")
    play.add_argument("--port", type=int, default=8765, metavar="N", help="0 takes a free one (8765)")
    play.add_argument("--allow-host", action="append", default=[], metavar="NAME", help="a name by which others call this host; repeatable")
    play.add_argument("--seed", type=int, help="root of all random draws of a new life")
    play.add_argument("--out", metavar="DIR", help="folder that keeps the life; one that holds a life goes on with it")

    report = commands.add_parser("report", parents=[of_files], help="write what a world has lived through as one HTML page")
    report.add_argument("path", help="a folder of wgtorch run, a world's state_dir, or a folder written by World.save()")
    report.add_argument("-o", "--out", metavar="FILE", help="report.html in that folder by default")

    evaluate = commands.add_parser("evaluate", parents=[of_files], help="measure what a world has lived through")
    evaluate.add_argument("path", help="as for report; a folder written by World.save() can also be run again")
    evaluate.add_argument("--only", action="append", metavar="NAME", help="an evaluator; repeatable; all by default")
    evaluate.add_argument("--json", action="store_true", help="print JSON in place of a table")

    inspect = commands.add_parser("inspect", help="look into a checkpoint: tree, sizes, who shares what, versions, hashes")
    inspect.add_argument("path", help="a folder or archive written by save_checkpoint")

    models = commands.add_parser(
        "models", parents=[of_files], help="list the models that some levels use: each once, its memory, its places; or add NAME"
    )
    models.add_argument("targets", nargs="+", metavar="target", help=f"{_TARGET}; or: add smollm2, to install a small model")
    models.add_argument("--yes", action="store_true", help="with add: install without asking")
    return parser


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise argparse.ArgumentTypeError(f"{text!r}: expected NAME=VALUE")
    return name, value


if __name__ == "__main__":
    sys.exit(main())
