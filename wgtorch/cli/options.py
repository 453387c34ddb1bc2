"""The command line's grammar: every command with its options. What a command does is in the file of its name."""

from __future__ import annotations

import argparse
import os
from difflib import get_close_matches
from typing import Any

LEVELS = ("graph", "pipeline", "stage", "world")
_TARGET = "a template's name (default, graph/text_to_image), a YAML or JSON config, or a folder written by save()"


def make_parser() -> argparse.ArgumentParser:
    """The parser of ``wgtorch``. Nothing is imported that a command needs."""
    parser = argparse.ArgumentParser(prog="wgtorch", description="Builds, runs, trains, serves and shows graphs, pipelines and worlds.")
    parser.add_argument("--version", action="store_true", help="print the version of wgtorch, of PyTorch and of Python")
    commands = parser.add_subparsers(dest="command", metavar="command", parser_class=_Command)
    for add in _COMMANDS:
        add(commands)
    return parser


class _Command(argparse.ArgumentParser):
    """A command that names its own mistakes: argparse leaves options that nobody knows to the program, which knows none of them."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> tuple[Any, list[str]]:
        found, rest = super().parse_known_args(args, namespace)
        if rest and "_ARGCOMPLETE" not in os.environ:
            known = {option.lstrip("-"): option for option in self._option_string_actions}
            near = get_close_matches(rest[0].partition("=")[0].lstrip("-"), known)
            self.error(f"unrecognized arguments: {' '.join(rest)}{f'; did you mean {known[near[0]]}?' if near else ''}")
        return found, rest


_PAIRS: dict[str, Any] = {"action": "append", "default": [], "metavar": "NAME=VALUE"}


def _of_files() -> argparse.ArgumentParser:
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument(
        "--trust",
        action="append",
        default=[],
        metavar="NAME",
        help="environment variable (NAME, PREFIX_*) that a file may read beside WGTORCH_*, or an address that a provider's own key may "
        "be sent to; repeatable",
    )
    return shared


def _about_level() -> argparse.ArgumentParser:
    shared = argparse.ArgumentParser(add_help=False, parents=[_of_files()])
    _completed(shared.add_argument("target", help=_TARGET), template_names)
    shared.add_argument("--set", help="a parameter of the template; repeatable", type=_pair, **_PAIRS)
    return shared


def _run(commands: Any) -> None:
    run = commands.add_parser("run", parents=[_about_level()], help="let a world live, or run a graph or a pipeline once")
    run.add_argument("--seed", type=int, help="root of all random draws; a world draws one and tells it when it is left out")
    run.add_argument("--out", metavar="DIR", help="where to write; a new folder outputs/<name of the target>/<number> by default")
    of_worlds = run.add_argument_group("for worlds")
    of_worlds.add_argument("--steps", type=int, metavar="N", help="passes of the cycle (3)")
    of_worlds.add_argument("--action", action="append", default=[], metavar="TEXT", help="what the user does: one for all passes, or each")
    of_worlds.add_argument("--resume", action="store_true", help="go on with the life that --out holds")
    of_tasks = run.add_argument_group("for graphs and pipelines")
    of_tasks.add_argument("--input", help="a value for an input: a text, a file, a number, JSON; repeatable", type=_pair, **_PAIRS)


def _train(commands: Any) -> None:
    train = commands.add_parser("train", help="train what an experiment or a config describes")
    train.add_argument("-m", "--multirun", action="store_true", help="a sweep; also among the overrides")
    train.add_argument("target", nargs="?", help="an experiment's name, a YAML config, or the folder of a run to do again")
    train.add_argument("overrides", nargs=argparse.REMAINDER, help="Hydra's overrides, as trainer.max_steps=100; -m for a sweep")


def _validate(commands: Any) -> None:
    commands.add_parser("validate", parents=[_about_level()], help="look for everything that would stop a run")


def _draw(commands: Any) -> None:
    draw = commands.add_parser("draw", parents=[_about_level()], help="draw the structure")
    draw.add_argument("--format", choices=("mermaid", "dot", "svg"), help="by the ending of --out when left out, else mermaid")
    draw.add_argument("--out", metavar="FILE", help="write there instead of printing")


def _diff(commands: Any) -> None:
    diff = commands.add_parser("diff", parents=[_of_files()], help="how two levels differ")
    _completed(diff.add_argument("first", help=_TARGET), template_names)
    _completed(diff.add_argument("second", help="the other one"), template_names)


def _templates(commands: Any) -> None:
    templates = commands.add_parser("templates", help="list the templates, or tell all of one: parameters, ports, how to run it")
    _completed(templates.add_argument("name", nargs="?", help="a template's name, bare or as graph/text_to_image"), template_names)
    templates.add_argument("--level", choices=LEVELS, help="only those of one level")


def _blocks(commands: Any) -> None:
    blocks = commands.add_parser("blocks", help="list the types of blocks, or tell all of one: ports, config, an example")
    _completed(blocks.add_argument("name", nargs="?", help="a type (solver/euler), or the beginning of several (solver/)"), block_names)


def _schema(commands: Any) -> None:
    schema = commands.add_parser("schema", help="print the JSON Schema of a level's configs, for editors and checkers")
    _completed(schema.add_argument("name", metavar="LEVEL", help=f"{', '.join(LEVELS)}, or a block type for its config"), block_names)
    schema.add_argument("--out", metavar="FILE", help="write there instead of printing")


def _new(commands: Any) -> None:
    new = commands.add_parser("new", help="write the beginning of a block, a graph, a world or a plug-in package, with its test")
    new.add_argument("kind", choices=("block", "graph", "world", "plugin"))
    new.add_argument("name", help="of what is made, such as my_package: small letters, digits and _")
    new.add_argument("--out", metavar="DIR", default=".", help="the folder to write into (the working folder)")


def _serve(commands: Any) -> None:
    serve = commands.add_parser("serve", parents=[_about_level()], help="serve it over HTTP: POST /run, OpenAI's endpoints, /docs")
    serve.add_argument("--host", default="127.0.0.1", help="where to listen; other machines need a key (127.0.0.1)")
    serve.add_argument("--port", type=int, default=8000, metavar="N", help="0 takes a free one (8000)")
    serve.add_argument("--api-key-env", metavar="NAME", help="environment variable with the key callers must show (WGTORCH_API_KEY)")
    serve.add_argument("--open", action="store_true", help="let everybody in, from other machines too")
    serve.add_argument("--max-mib", type=int, default=256, metavar="N", help="size of the largest request (256)")
    serve.add_argument("--timeout", type=float, metavar="S", help="seconds that a run may take")
    serve.add_argument("--concurrency", type=int, default=4, metavar="N", help="runs at once (4)")
    serve.add_argument("--max-batch", type=int, default=1, metavar="N", help="rows of concurrent requests that may share a pass (1)")
    serve.add_argument("--cors", action="append", default=[], metavar="ORIGIN", help="an origin whose pages may call, or *; repeatable")
    serve.add_argument("--sessions-dir", metavar="DIR", help="where sessions of a world keep their logs (in memory)")
    serve.add_argument("--max-sessions", type=int, default=64, metavar="N", help="sessions of a world at once (64)")
    serve.add_argument("--device", help="where the model runs (cuda)")


def _play(commands: Any) -> None:
    play = commands.add_parser("play", parents=[_about_level()], help="play a world on a page in the browser")
    play.add_argument("--host", default="127.0.0.1", help="where to listen; only this machine can call 127.0.0.1")
    play.add_argument("--port", type=int, default=8765, metavar="N", help="0 takes a free one (8765)")
    play.add_argument("--allow-host", action="append", default=[], metavar="NAME", help="a name by which others call this host; repeatable")
    play.add_argument("--seed", type=int, help="root of all random draws of a new life")
    play.add_argument("--out", metavar="DIR", help="folder that keeps the life; one that holds a life goes on with it")


def _report(commands: Any) -> None:
    report = commands.add_parser("report", parents=[_of_files()], help="write what a world has lived through as one HTML page")
    report.add_argument("path", help="a folder of wgtorch run, a world's state_dir, or a folder written by World.save()")
    report.add_argument("-o", "--out", metavar="FILE", help="report.html in that folder by default")


def _evaluate(commands: Any) -> None:
    evaluate = commands.add_parser("evaluate", parents=[_of_files()], help="measure what a world has lived through")
    evaluate.add_argument("path", help="as for report; a folder written by World.save() can also be run again")
    evaluate.add_argument("--only", action="append", metavar="NAME", help="an evaluator; repeatable; all by default")
    evaluate.add_argument("--json", action="store_true", help="print JSON in place of a table")


def _inspect(commands: Any) -> None:
    inspect = commands.add_parser("inspect", help="look into a checkpoint: tree, sizes, who shares what, versions, hashes")
    inspect.add_argument("path", help="a folder or archive written by save_checkpoint")


def _models(commands: Any) -> None:
    about = "list the models that some levels use: each once, its memory, its places; or add NAME"
    models = commands.add_parser("models", parents=[_of_files()], help=about)
    about = f"{_TARGET}; or: add smollm2, to install a small model; none lists those that add knows"
    _completed(models.add_argument("targets", nargs="*", metavar="target", help=about), template_names)
    models.add_argument("--yes", action="store_true", help="with add: install without asking")


def _import(commands: Any) -> None:
    imports = commands.add_parser("import", help="make a graph of a workflow of ComfyUI, or of a pipeline of diffusers")
    imports.add_argument("kind", choices=("comfy", "diffusers"))
    imports.add_argument("source", help="workflow_api.json, or a PNG that ComfyUI saved; or a folder or single file of a pipeline")
    imports.add_argument("--models", metavar="DIR", help="comfy: a folder as ComfyUI's models, or one with all files in it")
    imports.add_argument("--images", metavar="DIR", help="comfy: folder of the pictures that are loaded; without it they are inputs")
    imports.add_argument("--task", help="diffusers: text_to_image, image_to_image, inpaint, text_to_video or image_to_video")
    imports.add_argument("--config", metavar="DIR", help="for single files, without network: the folder of a pipeline of the same kind")
    imports.add_argument("--dtype", help="of the weights, as bfloat16")
    imports.add_argument("--out", metavar="DIR", help="where to write the graph; named as the source when left out")


def _completion(commands: Any) -> None:
    completion = commands.add_parser("completion", help="print what makes a shell complete commands, templates and types")
    completion.add_argument("shell", choices=("bash", "zsh", "fish", "powershell"), help='as in: eval "$(wgtorch completion bash)"')


_COMMANDS = (
    *(_run, _train, _validate, _draw, _diff, _templates, _blocks, _schema, _new),
    *(_serve, _play, _report, _evaluate, _inspect, _models, _import, _completion),
)


def template_names(**_: Any) -> list[str]:
    """Names of templates, bare and with their level, without importing any."""
    from wgtorch.core.registry import announced

    names = announced("wgtorch.templates")
    return [*names, *dict.fromkeys(name.split("/", 1)[1] for name in names if "/" in name)]


def block_names(**_: Any) -> list[str]:
    """Types of blocks and levels, without importing any."""
    from wgtorch.core.registry import announced

    return [*announced("wgtorch.blocks"), *LEVELS]


def _completed(argument: argparse.Action, names: Any) -> None:
    argument.completer = names  # type: ignore[attr-defined]  # what argcomplete looks for; files are completed too


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise argparse.ArgumentTypeError(f"{text!r}: expected NAME=VALUE")
    return name, value
