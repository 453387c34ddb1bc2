"""Mutation testing: draws small faults into a copy of the package and shows those that no test notices.

    python scripts/mutate.py --seed 1                                  200 mutants of core, lora and solvers
    python scripts/mutate.py --seed 1 --count 20 --only wgtorch/core/plan --jobs 2

The first start runs the suite once under coverage, so that a mutant is tried only on the tests that run its line
(``--collect`` does it again; a changed file falls back on all tests that touch it). Results go to a file of JSON
lines as they come; a second start with the same seed goes on where the first was stopped. A mutant on which a test
fails, or which hangs, is killed. Ends with the survivors, each with its place and diff, and not with 0 when there is
one that ``scripts/mutants_equivalent.txt`` does not prove to be the same program.
"""

from __future__ import annotations

import argparse
import ast
import difflib
import hashlib
import json
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from queue import SimpleQueue
from typing import Any
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parents[1]
SCOPES = ("wgtorch/core", "wgtorch/lora", "wgtorch/blocks/diffusion")
EQUIVALENT = ROOT / "scripts/mutants_equivalent.txt"
MEMORY = 12 << 30  # bytes a test process may ask for; a mutant may well grow a list for ever

# --- mutants ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Mutant:
    """One change of one file: the bytes from ``start`` to ``end`` become ``text``."""

    file: str
    kind: str
    line: int
    lines: range  # of the statement around it, as far as its own lines go; none where it runs at import, within whatever test comes first
    start: int
    end: int
    text: str

    @property
    def source(self) -> bytes:
        return read(self.file)

    @property
    def mutated(self) -> bytes:
        return self.source[: self.start] + self.text.encode() + self.source[self.end :]

    @property
    def key(self) -> str:
        """The same for the same change of the same file."""
        return hashlib.sha256(f"{self.file}\n".encode() + self.mutated).hexdigest()[:16]

    def diff(self) -> str:
        before, after = (text.decode().splitlines() for text in (self.source, self.mutated))
        return "\n".join(list(difflib.unified_diff(before, after, lineterm="", n=0))[3:])


@cache
def read(file: str) -> bytes:
    return (ROOT / file).read_bytes()


FLIPS: dict[type[ast.AST], type[ast.AST]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In, ast.And: ast.Or, ast.Or: ast.And,
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult, ast.Mod: ast.FloorDiv,
    ast.Pow: ast.Mult, ast.BitOr: ast.BitAnd, ast.BitAnd: ast.BitOr,
}  # fmt: skip
REVERSED = {ast.Lt: ast.Gt, ast.LtE: ast.GtE, ast.Gt: ast.Lt, ast.GtE: ast.LtE}
COSMETIC = {"repr", "stacklevel"}  # keywords that change no result


class Sites(ast.NodeVisitor):
    """All mutants of a file. Annotations, docstrings, decorators, asserts and the words of messages are left alone."""

    def __init__(self, file: str) -> None:
        self.file = file
        source = read(file)
        self.starts = [0]
        for line in source.splitlines(keepends=True):
            self.starts.append(self.starts[-1] + len(line))
        self.found: list[Mutant] = []
        self.lines = range(0)
        self.in_function = False
        self.visit(ast.parse(source))

    def add(self, kind: str, node: ast.expr | ast.stmt, text: str) -> None:
        assert node.end_lineno is not None and node.end_col_offset is not None
        start = self.starts[node.lineno - 1] + node.col_offset
        end = self.starts[node.end_lineno - 1] + node.end_col_offset
        self.found.append(Mutant(self.file, kind, node.lineno, self.lines, start, end, text))

    def replaced(self, kind: str, node: ast.expr, new: ast.expr) -> None:
        text = ast.unparse(new)
        self.add(kind, node, text if isinstance(new, (ast.Constant, ast.Call)) else f"({text})")

    def visit(self, node: ast.AST) -> None:
        if isinstance(node, ast.stmt):
            body = getattr(node, "body", None)
            last = body[0].lineno - 1 if isinstance(body, list) and body else node.end_lineno or node.lineno
            outer, self.lines = self.lines, range(node.lineno, max(last, node.lineno) + 1) if self.in_function else range(0)
            super().visit(node)
            self.lines = outer
        else:
            super().visit(node)

    # statements

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        for default in [*node.args.defaults, *node.args.kw_defaults]:
            if default is not None:
                self.visit(default)
        outer, self.in_function = self.in_function, True
        for statement in node.body:
            self.visit(statement)
        self.in_function = outer

    visit_AsyncFunctionDef = visit_FunctionDef

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        for statement in node.body:
            self.visit(statement)

    def visit_Lambda(self, node: ast.Lambda) -> None:
        self.generic_visit(node)

    def visit_Expr(self, node: ast.Expr) -> None:
        if not isinstance(node.value, ast.Constant):  # a docstring
            if isinstance(node.value, (ast.Call, ast.Await)):
                self.add("statement removed", node, "pass")
            self.visit(node.value)

    def visit_Assign(self, node: ast.Assign) -> None:
        names = {target.id for target in node.targets if isinstance(target, ast.Name)}
        if names & {"__all__", "__slots__"}:
            return
        if all(isinstance(target, (ast.Attribute, ast.Subscript)) for target in node.targets):
            self.add("statement removed", node, "pass")
        self.generic_visit(node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if node.value is not None:
            self.visit(node.value)

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        self.add("statement removed", node, "pass")
        self.generic_visit(node)

    def visit_Delete(self, node: ast.Delete) -> None:
        self.add("statement removed", node, "pass")

    def visit_Raise(self, node: ast.Raise) -> None:
        self.add("statement removed", node, "pass")

    def visit_Continue(self, node: ast.Continue) -> None:
        self.add("continue to break", node, "break")

    def visit_Break(self, node: ast.Break) -> None:
        self.add("break to continue", node, "continue")

    def visit_Return(self, node: ast.Return) -> None:
        if node.value is not None and not (isinstance(node.value, ast.Constant) and node.value.value is None):
            self.add("returns None", node, "return None")
            self.visit(node.value)

    def visit_If(self, node: ast.If) -> None:
        if "TYPE_CHECKING" not in ast.unparse(node.test):
            self.negated(node.test)
            self.generic_visit(node)

    def visit_While(self, node: ast.While) -> None:
        self.negated(node.test)
        self.generic_visit(node)

    def visit_Assert(self, node: ast.Assert) -> None:
        pass

    # expressions

    def negated(self, test: ast.expr) -> None:
        if not isinstance(test, (ast.Compare, ast.UnaryOp, ast.Constant)):  # those are flipped by themselves
            self.replaced("condition negated", test, ast.UnaryOp(ast.Not(), test))

    def visit_IfExp(self, node: ast.IfExp) -> None:
        self.negated(node.test)
        self.generic_visit(node)

    def visit_Compare(self, node: ast.Compare) -> None:
        for index, op in enumerate(node.ops):
            for table in (FLIPS, REVERSED):
                if type(op) in table:
                    ops = [*node.ops[:index], table[type(op)](), *node.ops[index + 1 :]]
                    self.replaced("comparison", node, ast.Compare(node.left, ops, node.comparators))
        self.generic_visit(node)

    def visit_BoolOp(self, node: ast.BoolOp) -> None:
        self.replaced("and/or", node, ast.BoolOp(FLIPS[type(node.op)](), node.values))
        for index in range(len(node.values)):
            rest = [*node.values[:index], *node.values[index + 1 :]]
            self.replaced("operand removed", node, ast.BoolOp(node.op, rest) if len(rest) > 1 else rest[0])
        self.generic_visit(node)

    def visit_UnaryOp(self, node: ast.UnaryOp) -> None:
        if isinstance(node.op, (ast.Not, ast.USub)):
            self.replaced("not or minus removed", node, node.operand)
        self.generic_visit(node)

    def visit_BinOp(self, node: ast.BinOp) -> None:
        if type(node.op) in FLIPS:
            self.replaced("arithmetic", node, ast.BinOp(node.left, FLIPS[type(node.op)](), node.right))
        self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        first = node.args[:2]
        if len(first) == 2 and not any(isinstance(word, ast.Starred) for word in first) and ast.dump(first[0]) != ast.dump(first[1]):
            self.replaced("arguments swapped", node, ast.Call(node.func, [first[1], first[0], *node.args[2:]], node.keywords))
        if ast.unparse(node.func) not in ("TypeVar", "cast", "ParamSpec"):
            self.generic_visit(node)

    def visit_keyword(self, node: ast.keyword) -> None:
        if node.arg not in COSMETIC:
            self.visit(node.value)

    def visit_Subscript(self, node: ast.Subscript) -> None:
        if ast.unparse(node.value) != "Literal":
            self.generic_visit(node)

    def visit_JoinedStr(self, node: ast.JoinedStr) -> None:
        pass  # words of a message

    def visit_Constant(self, node: ast.Constant) -> None:
        value = node.value
        if isinstance(value, bool):
            self.replaced("constant", node, ast.Constant(not value))
        elif isinstance(value, (int, float)):
            self.replaced("constant", node, ast.Constant(value + 1))
            self.replaced("constant", node, ast.Constant(value - 1) if value >= 1 else ast.UnaryOp(ast.USub(), ast.Constant(1 - value)))
        elif isinstance(value, str) and re.fullmatch(r"\w+", value):  # a name or a kind; what has blanks is for people
            self.replaced("string", node, ast.Constant(f"{value}_other"))


def mutants_of(files: Sequence[str]) -> list[list[Mutant]]:
    """For each site the mutants there, in the order of the files."""
    sites: dict[tuple[str, int, int, str], list[Mutant]] = {}
    for file in files:
        for mutant in Sites(file).found:
            sites.setdefault((file, mutant.start, mutant.end, mutant.kind), []).append(mutant)
    return list(sites.values())


def draw(files: Sequence[str], seed: int, count: int) -> list[Mutant]:
    sites = mutants_of(files)
    chance = random.Random(seed)
    drawn = [chance.choice(site) for site in chance.sample(sites, min(count, len(sites)))]
    for mutant in drawn:
        compile(mutant.mutated, mutant.file, "exec")
    return drawn


def equivalents() -> dict[tuple[str, str], str]:
    """(file, diff) -> the proof; blank lines part the entries: the file, the lines of the diff, the proof."""
    found = {}
    entries = re.sub(r"^#.*\n", "", EQUIVALENT.read_text(encoding="utf-8"), flags=re.M).strip().split("\n\n")
    for entry in filter(None, entries):
        file, *lines = entry.splitlines()
        change = [" ".join(line.split()) for line in lines if line.startswith(("-", "+"))]
        proof = " ".join(line.strip() for line in lines if not line.startswith(("-", "+")))
        if not proof or not change:
            raise SystemExit(f"{EQUIVALENT.name}: the entry for {file} needs its diff (lines with - and +) and the proof in words")
        found[file, "\n".join(change)] = proof
    return found


def change_of(mutant: Mutant) -> tuple[str, str]:
    lines = [line for line in mutant.diff().splitlines() if line.startswith(("-", "+"))]
    return mutant.file, "\n".join(" ".join(line.split()) for line in lines)


# --- which tests run a line -------------------------------------------------------------------------------------------


def pytest_runtest_logstart(nodeid: str) -> None:
    """Names coverage's contexts by the test, its fixtures included, where this file is a plugin of pytest."""
    from coverage import Coverage

    current = Coverage.current()
    assert current is not None
    current.switch_context(nodeid)


def copy_tree(folder: Path) -> Path:
    """The files that git knows or would take, without what was built."""
    names = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True)
    for name in names.stdout.splitlines():
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    return folder


def environment(tree: Path, *more: Path) -> dict[str, str]:
    paths = os.pathsep.join(map(str, (tree, *more)))
    return {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""


def collect(cache_folder: Path, paths: Sequence[str], jobs: int) -> None:
    """Runs each test file once under coverage."""
    from coverage import CoverageData

    shutil.rmtree(cache_folder, ignore_errors=True)
    cache_folder.mkdir(parents=True)
    rc = cache_folder / "coveragerc"
    rc.write_text(f"[run]\nrelative_files = true\ninclude =\n{''.join(f'    {scope}/*{chr(10)}' for scope in SCOPES)}")
    files = sorted({file.relative_to(ROOT).as_posix() for path in paths for file in tests_under(ROOT / path)})
    with tempfile.TemporaryDirectory() as room:
        tree = copy_tree(Path(room))

        def one(number: int, file: str) -> None:
            report, data = cache_folder / f"{number}.xml", cache_folder / f"{number}.coverage"
            words = ["-m", "coverage", "run", f"--rcfile={rc}", f"--data-file={data}", "-m", "pytest", "-n", "0", "-p", "mutate", file]
            words += ["-p", "no:cacheprovider", f"--junitxml={report}", "-o", "junit_family=xunit1"]
            ran = subprocess.run(
                [sys.executable, *words], cwd=tree, env=environment(tree, tree / "scripts"), capture_output=True, text=True, check=False
            )
            print(f"{file}: {(ran.stdout.strip().splitlines() or [ran.stderr[-200:]])[-1]}", flush=True)

        with ThreadPoolExecutor(jobs) as pool:
            list(pool.map(one, range(len(files)), files))
    all_data = CoverageData(basename=str(cache_folder / "all.coverage"))
    seconds: dict[str, float] = {}
    failing: list[str] = []
    for number in range(len(files)):
        for path in cache_folder.glob(f"{number}.coverage*"):
            data = CoverageData(basename=str(path))
            data.read()
            all_data.update(data)
            path.unlink()
        if (cache_folder / f"{number}.xml").exists():
            for case in ElementTree.parse(cache_folder / f"{number}.xml").iter("testcase"):
                file = case.get("file", files[number])
                nodeid = f"{file}::{case.get('name')}"
                seconds[nodeid] = seconds.get(nodeid, 0.0) + float(case.get("time", 0))
                if case.find("failure") is not None or case.find("error") is not None:
                    failing.append(nodeid)
            (cache_folder / f"{number}.xml").unlink()
    sources = [file for scope in SCOPES for file in files_under(scope)]
    seen = {"seconds": seconds, "failing": failing, "digests": {file: digest(ROOT / file) for file in [*files, *sources]}}
    (cache_folder / "tests.json").write_text(json.dumps(seen))


def tests_under(path: Path) -> list[Path]:
    return [path] if path.is_file() else sorted(path.rglob("test_*.py"))


def files_under(path: str) -> list[str]:
    whole = ROOT / path
    found = [whole] if whole.is_file() else sorted(whole.rglob("*.py"))
    return [file.relative_to(ROOT).as_posix() for file in found]


class TestMap:
    """The tests that run a line, as the run under coverage saw it; those nearest to the file come first."""

    def __init__(self, cache_folder: Path) -> None:
        from coverage import CoverageData

        seen = json.loads((cache_folder / "tests.json").read_text())
        self.seconds: dict[str, float] = seen["seconds"]
        self.failing = set(seen["failing"])
        self.digests: dict[str, str] = seen["digests"]
        self.data = CoverageData(basename=str(cache_folder / "all.coverage"))
        self.data.read()
        self.by_line: dict[str, dict[int, list[str]]] = {}

    def contexts(self, file: str) -> dict[int, list[str]]:
        if file not in self.by_line:
            self.by_line[file] = self.data.contexts_by_lineno(file)
        return self.by_line[file]

    def unchanged(self, file: str) -> bool:
        return digest(ROOT / file) == self.digests.get(file)

    def tests_for(self, mutant: Mutant) -> list[str]:
        contexts = self.contexts(mutant.file)
        tests: set[str] = set()
        if self.unchanged(mutant.file):
            tests = {test for line in mutant.lines for test in contexts.get(line, []) if test}
        if not tests:  # run at import, or nowhere, or at another line by now
            tests = {test for line in contexts for test in contexts[line] if test}
        files: dict[str, list[str]] = {}
        for test in sorted(tests - self.failing):
            file = test.partition("::")[0]
            if (ROOT / file).exists():
                files.setdefault(file, []).append(test)
        name, room = Path(mutant.file).stem, Path(mutant.file).parent.relative_to("wgtorch").as_posix()

        def distance(file: str) -> tuple[bool, bool, float]:
            return name not in file, room not in file, sum(self.seconds.get(test, 1.0) for test in files[file])

        return [test for file in sorted(files, key=distance) for test in (files[file] if self.unchanged(file) else [file])]

    def took(self, tests: Sequence[str]) -> float:
        return sum(self.seconds.get(test, 5.0) for test in tests)


# --- trying one -------------------------------------------------------------------------------------------------------


def run_tests(tree: Path, tests: Sequence[str], limit: float) -> tuple[str, str]:
    """``killed`` with the test that failed, ``hangs``, or ``survived``."""
    words = tree / "tests_to_run"
    words.write_text("\n".join(tests))
    process = subprocess.Popen(
        [sys.executable, "-m", "pytest", "-n", "0", "-x", "-rfE", "--tb=no", "-p", "no:cacheprovider", f"@{words}"],
        cwd=tree, env=environment(tree), text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY)),
    )  # fmt: skip
    try:
        said, _ = process.communicate(timeout=limit)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        return "hangs", f"not done after {limit:.0f} s"
    if process.returncode == 0:
        return "survived", f"{len(tests)} tests"
    by = re.search(r"^(?:FAILED|ERROR) (tests/[^\s]+)", said, flags=re.M)
    if by is None and process.returncode in (4, 5) and "rror while loading conftest" not in said:
        raise SystemExit(f"pytest did not run the tests: {said[-2000:]}")
    return "killed", by[1] if by else said.strip().splitlines()[-1]


def attempt(mutant: Mutant, tree: Path, tests: TestMap) -> dict[str, Any]:
    chosen = tests.tests_for(mutant)
    started = time.monotonic()
    status, detail = "survived", "no test runs it"
    if chosen:
        place = tree / mutant.file
        try:
            write(place, mutant.mutated)
            status, detail = run_tests(tree, chosen, limit=60 + 6 * tests.took(chosen))
        finally:
            write(place, mutant.source)
    return {
        "key": mutant.key, "status": status, "detail": detail, "seconds": round(time.monotonic() - started, 1),
        "file": mutant.file, "line": mutant.line, "kind": mutant.kind, "diff": mutant.diff(),
    }  # fmt: skip


def write(place: Path, source: bytes) -> None:
    place.write_bytes(source)
    for compiled in (place.parent / "__pycache__").glob(f"{place.stem}.*.pyc"):
        compiled.unlink()  # of the same second and size, it would be taken for the new one


def try_all(drawn: Sequence[Mutant], results: Path, tests: TestMap, jobs: int) -> Iterator[dict[str, Any]]:
    """Results in the order in which they come; those that the file holds already, at once."""
    done = {entry["key"]: entry for entry in map(json.loads, results.read_text().splitlines())} if results.exists() else {}
    yield from (done[mutant.key] for mutant in drawn if mutant.key in done)
    left = [mutant for mutant in drawn if mutant.key not in done]
    with tempfile.TemporaryDirectory() as room, results.open("a") as file, ThreadPoolExecutor(jobs) as pool:
        trees: SimpleQueue[Path] = SimpleQueue()
        for number in range(min(jobs, len(left))):
            trees.put(copy_tree(Path(room) / str(number)))

        def one(mutant: Mutant) -> dict[str, Any]:
            tree = trees.get()
            try:
                return attempt(mutant, tree, tests)
            finally:
                trees.put(tree)

        for entry in pool.map(one, left):
            file.write(json.dumps(entry) + "\n")
            file.flush()
            yield entry


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seed", type=int, required=True, help="of the drawing")
    parser.add_argument("--count", type=int, default=200, help="how many mutants (200)")
    parser.add_argument("--only", nargs="+", default=SCOPES, metavar="PATH", help=f"files or folders to mutate ({', '.join(SCOPES)})")
    parser.add_argument("--jobs", type=int, default=1, help="how many at a time (1)")
    parser.add_argument("--collect", nargs="*", metavar="TESTS", help="see again which tests run which lines (all of tests)")
    parser.add_argument("--out", type=Path, default=ROOT / "outputs/mutants", help="folder for results and what --collect saw")
    parser.add_argument("--list", action="store_true", help="only show what would be tried")
    given = parser.parse_args()
    files = [file for path in given.only for file in files_under(path)]
    drawn = draw(files, given.seed, given.count)
    if given.list:
        for mutant in drawn:
            print(f"{mutant.file}:{mutant.line}: {mutant.kind}\n{mutant.diff()}")
        return 0
    seen = given.out / "coverage"
    if given.collect is not None or not (seen / "tests.json").exists():
        collect(seen, given.collect or ["tests"], given.jobs)
    proofs = equivalents()
    proved = [mutant for mutant in drawn if change_of(mutant) in proofs]
    counts: Counter[str] = Counter()
    survivors = []
    for entry in try_all([mutant for mutant in drawn if mutant not in proved], given.out / "results.jsonl", TestMap(seen), given.jobs):
        counts[entry["status"]] += 1
        place = f"{entry['file']}:{entry['line']}: {entry['kind']} ({entry['detail']})"
        print(f"{entry['status']:9} {entry['seconds']:6.1f} s  {place}", flush=True)
        if entry["status"] == "survived":
            survivors.append(f"{place}\n{entry['diff']}")
    print("", *survivors, sep="\n")
    noticed, differ = counts["killed"] + counts["hangs"], len(drawn) - len(proved)
    print(f"\n{noticed} of {len(drawn)} killed ({counts['hangs']} hung), {len(proved)} proved equivalent, {len(survivors)} survived")
    print(f"{100 * noticed / max(1, differ):.1f}% of those that are not the same program")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
