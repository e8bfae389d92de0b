"""Stops a run at each rename: what lies on the disk just before and just after it is what a kill there would leave.

    python campaigns/renames.py [--stages 02_generation ...] [--numbers FIRST LAST] [--home FOLDER]
        [--out campaigns/renames.csv]

A small study (two tiny LLMs, an encoder in a folder) is run whole. Then each stage is run once more with its outputs
and all caches removed, under a hook in every process that copies the run folder before and after each `os.replace` and
`os.rename`. So every rename is met, and every moment between two files that belong together. Of each copy is checked
that `status` calls no stage up to date whose outputs are not those of the whole run, and that no stage before is lost.
Then the study is run on from each copy, and has to end as the whole run did, byte by byte. Two copies count as one
moment where they have the same files, but for results (no tables), executed notebooks and temporary files that the run
from the other never looked at: under a second hook, its kernels note each file that they open, ask for or list before
they write it; a list tells whether a file is there, not what is in it. (Chapter 06 alone renames over a hundred figure
files.) Exits 1 where a moment does harm.
"""

import argparse
import functools
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import pandas as pd

from llm_routing.cli.running import open_run, run_study
from llm_routing.cli import stages as stages_module
from llm_routing.cli.stages import STAGE_NAMES, STAGES, imported_modules, is_result, read_state, why_stale
from llm_routing.routing.encoders import train_encoder
from llm_routing.study.runs import Run
from llm_routing.study.tables import StudyError, digest, project_root

PROFILE = """
name = "small"
description = "A small study to interrupt"
[source]
kind = "generate"
datasets = ["mini-math"]
queries = 6
[generation]
samples = 2
max_tokens = 16
latency = "none"
few_shot = 0
commit_every_s = 0
batch_size = 40
[generation.prompts]
fcot = "<START_QUESTION>\\n{{query}}\\n<END_QUESTION>\\n<START_ANSWER>\\n"
[[generation.pool]]
name = "wren"
model = "{folder}/wren"
prompt = "fcot"
[[generation.pool]]
name = "finch"
model = "{folder}/finch"
prompt = "fcot"
[routers]
names = ["knn", "mlc_finetuned"]
[routers.params]
knn = {{ encoder = "hf:{folder}/encoder" }}
mlc_finetuned = {{ model = "own", epochs = 1 }}
[policies]
names = ["argmax"]
[analysis]
resamples = 100
"""
FREEZE = """
import os, shutil, time
def _hooked(act):
    def freeze(moment, name):
        to = os.path.join(os.environ["FROZEN"], f"{time.time_ns()} {moment} {os.path.basename(name)}")
        shutil.copytree(os.environ["FREEZE"], to, ignore=shutil.ignore_patterns(".lock"))
    def call(src, dst, *args, **kw):
        inside = os.path.abspath(dst).startswith(os.environ["FREEZE"] + os.sep)
        if inside:
            freeze("before", os.fspath(dst))
        act(src, dst, *args, **kw)
        if inside:
            freeze("after", os.fspath(dst))
    return call
os.replace, os.rename = _hooked(os.replace), _hooked(os.rename)
"""
LOOK = """
import os, sys
_seen, _replace, _stat = set(), os.replace, os.stat
def _note(name, end="", looked=True):
    path = os.path.abspath(os.fsdecode(name)) + end if isinstance(name, (str, bytes, os.PathLike)) else ""
    if path.startswith(os.environ["LOOK"] + os.sep) and path not in _seen:
        _seen.add(path)
        if looked:
            known = [os.path.basename(p) for p in _seen if end and os.path.dirname(p) + end == path]
            with open(os.environ["LOOKED"], "a") as log:
                log.write(chr(9).join([path, *known]) + chr(10))
def _audit(event, args):
    if event == "open":
        new = args[2] & os.O_EXCL if args[1] is None else set(args[1]) & set("wx")
        _note(args[0], looked=not new)
    elif event in ("os.listdir", "os.scandir"):
        _note(args[0], os.sep)
def _replaced(src, dst, **kw):
    _replace(src, dst, **kw)
    _note(dst, looked=False)
def _asked(path, *args, **kw):
    _note(path)
    return _stat(path, *args, **kw)
sys.addaudithook(_audit)
os.replace, os.stat = _replaced, _asked
"""
CACHES = ("cache", "responses_store")
MEASURED = ("latency.csv",)  # seconds that a stage took here: other ones each time
KINDS = (".parquet", ".csv", ".json", ".md", ".tex", ".svg", ".pdf")  # a page of HTML says how long a stage took


def make_study(folder: Path) -> Path:
    "Write the small study's LLMs, encoder and profile; the profile's file."
    for name in ("wren", "finch"):
        shutil.copytree(project_root() / "data" / "tiny_llms" / f"{name}-base", folder / name)
    with tempfile.TemporaryDirectory() as home:
        texts = ["two plus three", "a bird sings at dawn"] * 20
        shutil.copytree(train_encoder(texts, home, steps=1, width=16), folder / "encoder")
    (folder / "small.toml").write_text(PROFILE.format(folder=folder))
    return folder / "small.toml"


def results(folder: Path) -> dict[str, bytes]:
    "A run's tables and figures."
    files = [*folder.glob("*.parquet"), *folder.glob("*.csv"), *(folder / "figures").rglob("*.*")]
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in files if is_alike(p)}


def is_alike(file: Path) -> bool:
    "Whether a file is one that every run makes alike: no temporary one, and none of measured seconds."
    return file.suffix in KINDS and file.name not in MEASURED and not file.name.startswith(".")


def contents(folder: Path) -> dict[str, str]:
    "The digest of each file of a run; the temporary file of a folder is called `.*`, whatever it would become."
    files = (p for p in folder.rglob("*") if p.is_file())
    return {alike(p.relative_to(folder).as_posix()): digest(p) for p in files}


def alike(name: str) -> str:
    return re.sub(r"(^|/)\.[^/]*\.\*$", r"\1.*", plain(name))


def plain(name: str) -> str:
    "A file's name without what is random in it."
    head, _, last = name.rpartition("/")
    last = re.sub(r"^(\..+\.)[a-z0-9_]{8}$", r"\1*", re.sub(r"[0-9a-f]{16,}", "*", last))
    return f"{head}/{last}" if head else last


def hooked(home: Path, hook: str, **env: str) -> dict[str, str]:
    "An environment in which each Python process begins with the hook."
    folder = home / "hook"
    folder.mkdir(exist_ok=True)
    (folder / "sitecustomize.py").write_text(hook)
    path = os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH", "")]))
    return {"PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1", **env}


def freeze(study: Path, stage: str, home: Path) -> list[Path]:
    "Run one stage with nothing left of it, and copy the run folder at each rename; the copies, in order."
    folder, frozen = home / "run", home / "frozen"
    for place in (folder, frozen):
        shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(study / "run", folder)
    for name in read_state(Run.open("mini", folder))[stage]["outputs"]:
        (folder / name).unlink()
    for name in CACHES:
        shutil.rmtree(folder / name, ignore_errors=True)
    frozen.mkdir()
    command = [sys.executable, "-m", "llm_routing.cli.runner", "run", "--from", stage, "--to", stage]
    env = os.environ | hooked(home, FREEZE, FREEZE=str(folder), FROZEN=str(frozen))
    subprocess.run([*command, "--run-dir", str(folder)], env=env, check=True, capture_output=True, cwd=project_root())
    return sorted(frozen.iterdir())


def untruth(folder: Path, stage: str, whole: dict[str, bytes]) -> str:
    "What `status` says wrongly of a folder; empty where it is right."
    run, mine = open_run(run_dir=str(folder)), results(folder)
    for s in STAGES:
        why = why_stale(s, run)
        if why and s.name in STAGE_NAMES[: STAGE_NAMES.index(stage)]:
            return f"{s.name} was finished and is lost: {why}"
        for name in () if why else read_state(run)[s.name]["outputs"]:
            if name in whole and mine.get(name) != whole[name]:
                return f"{s.name} is called up to date with another {name}"
    return ""


@dataclass
class Moment:
    "A copy that the study was run on from: what was in it, what the run looked at, and how it ended."

    number: int
    before: dict[str, str]  # file -> digest
    looked: set[str]  # files
    listed: list[tuple[str, set[str]]]  # folders, and what of them the kernel had looked at or written before
    ran: list[str]  # stages
    fault: str

    def is_same(self, files: dict[str, str]) -> bool:
        "Whether the run from other files could not tell them from these."
        differ = {n for n in files.keys() | self.before.keys() if files.get(n) != self.before.get(n)}
        came_or_went = files.keys() ^ self.before.keys()
        return all(self.ran and is_only_written(n) and not self.saw(n, n in came_or_went) for n in differ)

    def saw(self, name: str, came_or_went: bool) -> bool:
        folder, _, last = name.rpartition("/")
        return (
            name in self.looked or came_or_went and any(folder == f and last not in known for f, known in self.listed)
        )


def is_only_written(name: str) -> bool:
    "Whether a file is one that the hook would see a kernel look at, and that the runner does not read."
    return name.startswith("figures/") or "/" not in name and (is_result(name) or name.endswith((".ipynb", ".*")))


def run_on(number: int, folder: Path, whole: dict[str, bytes], home: Path, last: str = "") -> Moment:
    "Run the study again from a copy."
    log, before = home / "looked", contents(folder)
    log.write_text("")
    with mock.patch.dict(os.environ, hooked(home, LOOK, LOOK=str(folder), LOOKED=str(log))):
        try:
            ran, fault = run_study(open_run(run_dir=str(folder)), last=last, progress=False), ""
        except StudyError as e:
            ran, fault = [], f"the next run failed: {e}"
    mine = results(folder)
    differ = sorted(k for k in mine.keys() | whole.keys() if mine.get(k) != whole.get(k))
    if differ and not fault:
        fault = f"other results than the whole run's: {differ[:3]}"
    lines = [line.removeprefix(f"{folder}/").split("\t") for line in log.read_text().splitlines()]
    looked = {alike(name) for name, *_ in lines if name and not name.endswith("/")}
    listed = [(name.rstrip("/"), set(known)) for name, *known in lines if not name or name.endswith("/")]
    return Moment(number, before, looked, listed, ran, fault)


def campaign(
    study: Path,  # that of `make_study`, run into `run`
    stages: list[str],
    home: Path,
    last: str = "",  # the last stage that was run; the study's if not given
    out: Path | None = None,  # a CSV file for the rows so far
    numbers: tuple[int, int] | None = None,  # the first and the last moment of each stage; all if not given
) -> pd.DataFrame:
    "Stop each stage at each rename: a row for each moment, with the number of the one that was run on from for it."
    rows, imports = [], functools.cache(imported_modules)  # reading all code for each moment would take longest
    for stage in stages:
        with mock.patch.object(stages_module, "imported_modules", lambda *args: set(imports(*args))):
            for row in stopped_at_each(study, stage, home, last, numbers):
                rows.append(row)
                if out:
                    table(rows).to_csv(out, index=False)
    return table(rows)


def stopped_at_each(study: Path, stage: str, home: Path, last: str, numbers: tuple[int, int] | None) -> Iterator[tuple]:
    "The rows of one stage."
    began, met = time.monotonic(), []
    whole, copies = results(study / "run"), freeze(study, stage, home)
    tried = slice(numbers[0] - 1, numbers[1]) if numbers else slice(None)
    for number, copy in list(enumerate(copies, 1))[tried]:
        _, event, name = copy.name.split(" ", 2)
        untrue, files = untruth(copy, stage, whole), contents(copy)
        same = next((m for m in met if m.is_same(files)), None)
        if same is None:
            same = run_on(number, copy, whole, home, last)
            met.append(same)
        fault = untrue or same.fault or "held"
        shutil.rmtree(copy)
        yield stage, number, event, plain(name), same.number, " ".join(same.ran), fault
    print(stage, f"{len(copies)} moments, {len(met)} run on from, {time.monotonic() - began:.0f} s", flush=True)


def table(rows: list[tuple]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["stage", "number", "moment", "file", "run_on_from", "ran", "verdict"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stages", nargs="+", default=STAGE_NAMES, choices=STAGE_NAMES)
    parser.add_argument("--numbers", nargs=2, type=int, metavar=("FIRST", "LAST"), help="some moments of each stage")
    parser.add_argument("--home", type=Path, help="a folder that keeps the small study for the next part")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("renames.csv"))
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        home = (args.home or Path(scratch)).resolve()
        study, profile = home / "study", home / "study" / "small.toml"
        if not profile.exists():
            study.mkdir(parents=True)
            make_study(study)
        run_study(open_run(str(profile), str(study / "run")), progress=False)
        found = campaign(study, args.stages, home, out=args.out, numbers=args.numbers)
    harm = found[found.verdict != "held"]
    runs = (found.number == found.run_on_from).sum()
    print(f"{len(found)} moments, {runs} run on from, {len(harm)} did harm")
    print(harm.to_string() if len(harm) else "")
    sys.exit(len(harm) > 0)


if __name__ == "__main__":
    main()
