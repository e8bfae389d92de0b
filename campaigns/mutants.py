"""Changes one thing at a time in a module, and sees whether its tests notice.

    python campaigns/mutants.py [extraction policies statistics] [--count 150] [--seed 0] [--minutes 60] [--out
    campaigns/mutants.csv]

A mutant is the module with one comparison, operator, number, condition or result changed. Those to try are drawn with
a seed. Each is run in a process of its own against the module's exported tests, up to the first failure; a mutant is
*noticed* when a test fails or never ends (takes twice the processor time that all tests take, and more). Tests that
name the changed function run first, short ones before long ones; one that counts the source's own lines is left out.
The score is the share noticed; a mutant that cannot change any result (an equivalent one) counts as unnoticed, so the
true score is higher. Runs of the command in other processes see the unchanged module. Exits 0; needs a system with
fork.
"""

import argparse
import ast
import contextlib
import copy
import importlib.abc
import importlib.util
import inspect
import json
import os
import random
import resource
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

ROOT = Path(__file__).resolve().parent.parent
MODULES = {"extraction": "outcomes.numbers", "policies": "policies.policies", "statistics": "study.statistics"}
TESTS = {
    "extraction": ("test_03e_numbers.py", "test_03k_checked_on_labels.py"),
    "policies": ("test_05b_policies.py", "test_05e_systems.py"),
    "statistics": ("test_00d_statistics.py",),
}
COMPARED = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
COMPUTED = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Pow: ast.Mult,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
}


def changed(node: ast.AST) -> Iterator[tuple[str, ast.AST]]:
    "What can be changed in one node: in words, and the node to put in its place."
    new = copy.deepcopy(node)
    if isinstance(new, ast.Compare) and type(new.ops[0]) in COMPARED:
        old, new.ops[0] = type(new.ops[0]), COMPARED[type(new.ops[0])]()
        yield f"{old.__name__} to {type(new.ops[0]).__name__}", new
    elif isinstance(new, ast.BinOp) and type(new.op) in COMPUTED:
        old, new.op = type(new.op), COMPUTED[type(new.op)]()
        yield f"{old.__name__} to {type(new.op).__name__}", new
    elif isinstance(new, ast.BoolOp):
        old, new.op = type(new.op), ast.Or() if isinstance(new.op, ast.And) else ast.And()
        yield f"{old.__name__} to {type(new.op).__name__}", new
    elif isinstance(new, ast.UnaryOp) and isinstance(new.op, (ast.Not, ast.USub)):
        yield f"{type(new.op).__name__} dropped", new.operand
    elif isinstance(new, ast.Constant) and isinstance(new.value, bool):
        yield f"{new.value} to {not new.value}", ast.Constant(not new.value)
    elif isinstance(new, ast.Constant) and isinstance(new.value, (int, float)):
        yield f"{new.value} to {new.value + 1}", ast.Constant(new.value + 1)
    elif isinstance(new, (ast.If, ast.IfExp)):
        new.test = ast.UnaryOp(ast.Not(), new.test)
        yield "condition turned", new
    elif isinstance(new, ast.Return) and new.value is not None and not isinstance(new.value, ast.Constant):
        yield "result to None", ast.Return(ast.Constant(None))


def places(tree: ast.Module) -> list[tuple[str, ast.AST, str, int | None, str, ast.AST]]:
    """Every change within functions: function, parent, field, position, words, new node. Messages, annotations and
    demonstrations are left alone."""
    found = []

    def visit(parent: ast.AST, inside: str) -> None:
        if isinstance(parent, (ast.Raise, ast.JoinedStr, ast.Assert)):
            return
        for field, held in ast.iter_fields(parent):
            if field in ("annotation", "returns", "decorator_list"):
                continue
            for i, node in enumerate(held if isinstance(held, list) else [held]):
                if not isinstance(node, ast.AST):
                    continue
                within = node.name if isinstance(node, (ast.FunctionDef, ast.ClassDef)) else inside
                if inside:
                    found.extend(
                        (inside, parent, field, i if isinstance(held, list) else None, words, new)
                        for words, new in changed(node)
                    )
                visit(node, within)

    visit(tree, "")
    return found


def drawn(source: str, count: int, seed: int) -> list[int]:
    "Which of all changes are tried, in random order."
    n = len(places(ast.parse(source)))
    return random.Random(seed).sample(range(n), min(count, n))


def mutants(source: str, chosen: list[int]) -> Iterator[tuple[int, str, int, str, str]]:
    "Position, function, line, change, and the changed module's text, for some of all changes."
    for k in chosen:
        fresh = ast.parse(source)
        function, parent, field, i, words, new = places(fresh)[k]
        held = getattr(parent, field)
        line = (held if i is None else held[i]).lineno
        if i is None:
            setattr(parent, field, new)
        else:
            held[i] = new
        yield k, function, line, words, ast.unparse(ast.fix_missing_locations(fresh))


class Instead(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    "Gives a text for a module in place of its file."

    def __init__(self, name: str, text: str):
        self.name, self.text = name, text

    def find_spec(self, name, path=None, target=None):
        return (
            importlib.util.spec_from_file_location(name, ROOT / f"{name.replace('.', '/')}.py", loader=self)
            if name == self.name
            else None
        )

    def create_module(self, spec):
        return None

    def exec_module(self, module):
        # noqa: S102 (this project's own code)
        exec(compile(self.text, f"{self.name} (changed)", "exec"), module.__dict__)


class Sooner:
    "A pytest plugin: tests that name a function first, quick ones before slow ones; and how long each took."

    def __init__(self, function: str, took: dict[str, float]):
        self.function, self.took, self.now = function, took, {}

    def pytest_collection_modifyitems(self, items: list) -> None:
        items.sort(
            key=lambda item: (self.function not in inspect.getsource(item.function), self.took.get(item.nodeid, 0.0))
        )

    def pytest_runtest_logreport(self, report) -> None:
        self.now[report.nodeid] = self.now.get(report.nodeid, 0.0) + report.duration


def notices(
    module: str, text: str, seconds: float, function: str = "", took: Path | None = None, write: bool = False
) -> tuple[str, float]:
    """Whether the module's tests notice, as `failed`, `no end` or `passed`, within so many processor seconds; and
    how many they took."""
    child = os.fork()
    if not child:
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), 1)
            os.dup2(nowhere.fileno(), 2)
        resource.setrlimit(
            resource.RLIMIT_CPU, (int(seconds), int(seconds))
        )  # processor seconds, so that a busy machine does not decide
        sys.meta_path.insert(0, Instead(f"llm_routing.{MODULES[module]}", text))
        import pytest

        plugin = Sooner(function, json.loads(took.read_text()) if took and took.is_file() else {})
        try:
            status = pytest.main(
                [
                    "-x",
                    "-q",
                    "-p",
                    "no:cacheprovider",
                    "-p",
                    "no:xdist",
                    "-o",
                    "addopts=",
                    "-k",
                    "not on_a_screen",
                    *[str(ROOT / "tests" / name) for name in TESTS[module]],
                ],
                plugins=[plugin],
            )
        except BaseException:
            status = 1
        if took and write:
            took.write_text(json.dumps(plugin.now))
        os._exit(1 if status else 0)
    until = time.monotonic() + 10 * seconds  # for one that sleeps
    while True:
        done, status, used = os.wait4(child, os.WNOHANG)
        if done:
            break
        if time.monotonic() > until:
            os.kill(child, signal.SIGKILL)
            _, status, used = os.wait4(child, 0)
            break
        time.sleep(0.02)
    ended = {0: "passed", -signal.SIGKILL: "no end", -signal.SIGXCPU: "no end"}.get(
        os.waitstatus_to_exitcode(status), "failed"
    )
    return ended, used.ru_utime + used.ru_stime


def preload() -> None:
    "Import once, before the forks, what the tests import besides the package."
    for name in (
        "numpy",
        "pandas",
        "pyarrow.parquet",
        "scipy.stats",
        "sklearn.linear_model",
        "sklearn.cluster",
        "statsmodels.api",
        "pandera.pandas",
        "hypothesis",
        "pytest",
        "matplotlib.pyplot",
        "pydantic",
    ):
        with contextlib.suppress(ImportError):
            __import__(name)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("modules", nargs="*", default=list(TESTS))
    parser.add_argument("--count", type=int, default=150)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=60, help="for all modules together")
    parser.add_argument("--out", type=Path)
    parser.add_argument(
        "--again",
        action="store_true",
        help="try again those of --out that were not noticed, after tests were added; nothing else may have changed",
    )
    args = parser.parse_args()
    os.chdir(ROOT)
    preload()
    rows: list[dict] = []
    before = pd.read_csv(args.out).to_dict("records") if args.again else []
    again = [r for r in before if r["tests"] == "passed" and r["module"] in args.modules]
    kept = [r for r in before if r not in again]
    stop = time.monotonic() + args.minutes * 60
    took = Path(tempfile.mkdtemp()) / "seconds.json"
    for k, module in enumerate(args.modules):
        source = (ROOT / "llm_routing" / f"{MODULES[module].replace('.', '/')}.py").read_text(encoding="utf-8")
        said, whole = notices(module, ast.unparse(ast.parse(source)), 1200, "", took, write=True)
        if said != "passed":
            sys.exit(f"{module}: its tests do not pass as they are ({said})")
        print(
            f"{module}: {len(places(ast.parse(source)))} changes are possible; "
            f"its tests take {whole:.0f} s of processor time",
            flush=True,
        )
        share = time.monotonic() + (stop - time.monotonic()) / (len(args.modules) - k)
        chosen = (
            [r["place"] for r in again if r["module"] == module] if args.again else drawn(source, args.count, args.seed)
        )
        for place, function, line, words, text in mutants(
            source, chosen
        ):  # where time runs out, those tried are a sample too
            if time.monotonic() > share:
                break
            rows.append(
                {
                    "module": module,
                    "place": place,
                    "function": function,
                    "line": line,
                    "change": words,
                    "tests": notices(module, text, 2 * whole + 20, function, took)[0],
                }
            )
            if rows[-1]["tests"] == "passed":
                print("not noticed:", rows[-1], flush=True)
            again = [
                r for r in again if (r["module"], r["place"]) != (module, place)
            ]  # those left, where time runs out, stay unnoticed
            if args.out:
                pd.DataFrame(kept + rows + again).to_csv(args.out, index=False)
        mine = [r for r in kept + rows + again if r["module"] == module]
        print(f"{module}: {sum(r['tests'] != 'passed' for r in mine)} of {len(mine)} noticed", flush=True)


if __name__ == "__main__":
    main()
