"""The shape of the package: which way imports point, what a bare import loads, which names are public."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import wgtorch
from wgtorch.core.plan import strong_components
from wgtorch.core.structure import Edge

PACKAGE = Path(wgtorch.__file__).parent
HEAVY = {
    "PIL", "anthropic", "diffusers", "hydra", "jsonschema", "lightning", "omegaconf", "openai", "peft", "pydantic",
    "pytorch_lightning", "rich", "transformers",
}  # fmt: skip

# From the inside out. A module may import from its own layer and those before it.
LAYERS = (
    ("wgtorch.core",),
    ("wgtorch.ports", "wgtorch.roles", "wgtorch.world_runtime.state"),
    ("wgtorch.world_runtime.conditions", "wgtorch.world_runtime.contract", "wgtorch.storage"),
    ("wgtorch.graph", "wgtorch.pipeline", "wgtorch.stage", "wgtorch.world", "wgtorch.world_batch", "wgtorch.world_runtime"),
    ("wgtorch.blocks", "wgtorch.catalogue", "wgtorch.lora"),
    ("wgtorch.templates", "wgtorch.integrations"),
    ("wgtorch.train",),
    ("wgtorch.evaluation", "wgtorch.hub", "wgtorch.play", "wgtorch.report", "wgtorch.serving", "wgtorch.testing"),
    ("wgtorch.cli", "wgtorch.__main__"),
    ("wgtorch.ray",),
)  # fmt: skip


@cache
def modules() -> dict[str, Path]:
    found = {}
    for path in PACKAGE.rglob("*.py"):
        parts = ("wgtorch", *path.relative_to(PACKAGE).with_suffix("").parts)
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


@cache
def imports_of(path: Path) -> list[str]:
    """Modules of the package that a module imports, at any depth of its code."""
    return list(_imports(path))


def _imports(path: Path) -> Iterator[str]:
    known = modules()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in known)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                if full in known or node.module in known:
                    yield full if full in known else str(node.module)


def layer_of(name: str) -> int:
    for index, prefixes in enumerate(LAYERS):
        if any(name == prefix or name.startswith(f"{prefix}.") for prefix in prefixes):
            return index
    raise AssertionError(f"{name} belongs to no layer; add it to LAYERS")


def test_imports_point_inwards() -> None:
    wrong = [
        f"{name} imports {target}"
        for name, path in modules().items()
        if name != "wgtorch"
        for target in imports_of(path)
        if layer_of(target) > layer_of(name)
    ]
    assert wrong == []


def test_nobody_inside_imports_through_the_package_root() -> None:
    wrong = [name for name, path in modules().items() if name != "wgtorch" and "wgtorch" in imports_of(path)]
    assert wrong == []


def test_there_is_no_import_cycle_not_even_a_lazy_one() -> None:
    known = modules()
    edges = [
        Edge(name, "", target, "")
        for name, path in known.items()
        for target in set(imports_of(path))
        if target != name and not (path.name == "__init__.py" and target.startswith(f"{name}."))
    ]
    assert [members for members in strong_components(known, edges) if len(members) > 1] == []
    assert len(edges) > 100, "the walk over imports sees nothing"


def test_the_planner_knows_nothing_of_torch() -> None:
    for path in [*(PACKAGE / "core" / "plan").glob("*.py"), PACKAGE / "core" / "structure.py", PACKAGE / "core" / "autoconnect.py"]:
        names = {
            alias.name if isinstance(node, ast.Import) else str(node.module)
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            if isinstance(node, (ast.Import, ast.ImportFrom))
            for alias in node.names
        }
        assert not any(name == "torch" or name.startswith("torch.") for name in names), path


def test_core_names_no_implementation_of_adapters() -> None:
    hook = PACKAGE / "core" / "adapter_hook.py"
    texts = {path: path.read_text(encoding="utf-8") for path in (PACKAGE / "core").rglob("*.py")}
    code = ast.parse(texts[hook])
    assert isinstance(code.body.pop(0), ast.Expr), "the docstring, which may say who answers"
    texts[hook] = ast.unparse(code)
    assert [path for path, text in texts.items() if re.search(r"peft|\blora", text, flags=re.IGNORECASE)] == []


def test_the_core_names_no_level() -> None:
    wrong = [
        f"{path.relative_to(PACKAGE)}:{node.lineno} {node.value}"
        for path in (PACKAGE / "core").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and node.value in ("graph", "pipeline", "stage", "world")
    ]
    assert wrong == []


def test_a_bare_import_loads_no_torch() -> None:
    code = "import sys, wgtorch; print('torch' in sys.modules, *(name for name in sys.modules if name.startswith('wgtorch')))"
    torch_there, *loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert torch_there == "False"
    assert set(loaded) == {"wgtorch", "wgtorch.catalogue", "wgtorch.core", "wgtorch.core.errors", "wgtorch.core.registry"}


def test_what_type_checkers_are_told_is_what_is_loaded() -> None:
    code = ast.parse((PACKAGE / "__init__.py").read_text(encoding="utf-8"))
    block = next(node for node in code.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
    told = {alias.name: node.module for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    submodules = {name for name, module in told.items() if module == "wgtorch"}
    assert {name: module for name, module in told.items() if name not in submodules} == wgtorch._HOME_OF
    assert submodules == set(wgtorch._SUBMODULES)
    assert set(wgtorch._HOME_OF) == set(wgtorch.__all__)
    assert {*wgtorch.__all__, *submodules} <= set(dir(wgtorch))


def test_using_every_name_loads_nothing_heavy() -> None:
    code = "import sys, torch; before = set(sys.modules); from wgtorch import *; print(*(set(sys.modules) - before))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert {name.split(".")[0] for name in loaded} & HEAVY == set()
    assert not [name for name in loaded if name.startswith(("wgtorch.blocks", "wgtorch.templates", "wgtorch.cli"))]


def test_the_public_names_are_these() -> None:
    assert sorted(wgtorch.__all__) == [
        "Block", "BlockRegistry", "Event", "Graph", "Kind", "NodeCache", "Paused", "Pipeline", "Pool", "Port", "Rng", "Stage",
        "State", "WgtorchError", "World", "WorldBatch", "evaluate", "register_block", "register_condition", "register_kind",
        "register_merge", "register_template", "show",
    ]  # fmt: skip
    assert all(hasattr(wgtorch, name) for name in wgtorch.__all__)


@pytest.mark.parametrize("name", sorted(wgtorch.__all__))
def test_public_names_say_what_they_are(name: str) -> None:
    assert (getattr(wgtorch, name).__doc__ or "").strip()
