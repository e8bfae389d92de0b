"""Breaks runs in every way that runs break in, and checks that nothing is silently wrong and nothing finished is lost.

    python campaigns/faults.py [--short] [--only KIND ...] [--where PLACE ...] [--seed 0] [--out campaigns/faults.csv]

A small study (120 queries, 3 LLMs) is run once. Each group of faults then works on a copy of its folder: something is
broken at a random moment or place, what the command and `status` say is checked, the next fault strikes what is left,
and at last the study is run again. It has to end with the first run's tables, byte by byte. Before a stage is killed,
stopped or left without room, all that it wrote is deleted, so that there is work to be lost; the moment is drawn from
the time that its cells took in the first run, and found again by the cell that the progress bar shows. A fault that
came too late is tried again, and called missed, not held, when that does not help. Needs Linux; the full disk and the
read-only folder need the right to mount, and are skipped with that reason where it is missing. Exits 1 where a fault
did harm.
"""

import argparse
import contextlib
import http.server
import json
import os
import pty
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import termios
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

from llm_routing.sources import files as sources_files
import numpy as np
import pandas as pd
import psutil
import pyarrow.parquet as pq
from safetensors.numpy import load_file, save_file

from llm_routing.cli.running import at_work, open_run, run_study
from llm_routing.cli.stages import STAGE_NAMES, STAGES, foreign, read_state, why_stale
from llm_routing.routing.encoders import make_encoder, train_encoder
from llm_routing.sources.queries import load_queries
from llm_routing.study.profiles import load_profile
from llm_routing.study.runs import Run
from llm_routing.study.tables import StudyError, TABLES, read_table

PROFILE = """
name = "toy"
description = "A small study to break"
[source]
kind = "table"
datasets = ["toy"]
path = "{path}"
[routers]
names = ["mlc", "clustering_tfidf"]
[policies]
names = ["argmax", "random_top3"]
[analysis]
resamples = 100
"""
JUMPY = """
import os, random, time
_now, _replace, _when, _far = time.time, os.replace, time.monotonic() + random.uniform(0, 8), random.choice([-1, 1]) *
86400 * 30
def _jump(): return _now() + (_far if time.monotonic() > _when else 0)
def _shifted(src, dst, **kw):
    _replace(src, dst, **kw)
    t = _jump(); os.utime(dst, (t, t))
time.time, os.replace = _jump, _shifted
"""


class Harm(AssertionError):
    "What must not happen: the message says what was seen."


class Skipped(Exception):
    "A fault that this machine does not permit."


class Missed(Exception):
    "A fault that came too late: what it should have struck had ended."


def must(held: bool, what: str) -> None:
    if not held:
        raise Harm(what)


def make_profile(folder: Path, seed: int) -> Path:
    "Write the small study's outcomes and profile; two kinds of queries, each with an LLM that is good at it."
    rng, rows = np.random.default_rng(seed), []
    for i in range(120):
        kind, a, b = int(rng.integers(2)), *rng.integers(2, 50, 2)
        text = f"Add {a} and {b}, number {i}" if kind else f"Which bird sings at {a} past {b}, bird {i}?"
        rows += [
            {
                "query_id": f"q{i:03d}",
                "text": text,
                "split": "train" if i < 70 else "validation" if i < 90 else "test",
                "llm": m,
                "score": int(rng.random() < p[kind]),
                "latency_s": round(float(rng.uniform(0.1, 2)), 3),
                "dataset": "toy",
            }
            for m, p in (("ada", [0.8, 0.3]), ("bob", [0.3, 0.8]), ("cy", [0.5, 0.5]))
        ]
    pd.DataFrame(rows).to_csv(folder / "toy.csv", index=False)
    (folder / "toy.toml").write_text(PROFILE.format(path=folder / "toy.csv"))
    return folder / "toy.toml"


MEASURED = ("latency.csv",)  # seconds that a stage took here: other ones each time


def results(folder: Path) -> dict[str, bytes]:
    "A run's tables and its figures' data."
    return {
        p.relative_to(folder).as_posix(): p.read_bytes()
        for p in sorted(folder.rglob("*"))
        if p.suffix in (".parquet", ".csv") and p.name not in MEASURED
    }


@dataclass
class Bench:
    "The reference run, and what every fault needs."

    home: Path
    reference: Path
    rng: np.random.Generator

    def copy(self, to: Path | None = None) -> Path:
        folder = to or Path(tempfile.mkdtemp(dir=self.home, prefix="fault-"))
        shutil.copytree(self.reference, folder, dirs_exist_ok=True, copy_function=shutil.copy)
        return folder

    def check(self, folder: Path) -> None:
        "The study, run again by the same command, ends as the reference did."
        try:
            run_study(open_run(run_dir=str(folder)), progress=False)
        except StudyError as e:
            raise Harm(f"the next run failed: {e}") from None
        self.same(folder)
        stale = {s.name: why for s in STAGES if (why := why_stale(s, open_run(run_dir=str(folder))))}
        must(not stale, f"not up to date after the next run: {stale}")
        known = json.loads((folder / "provenance.json").read_text())["stages"]
        must(sorted(known) == STAGE_NAMES, f"the provenance speaks of {sorted(known)} only")

    def same(self, folder: Path) -> None:
        mine, theirs = results(folder), results(self.reference)
        differ = sorted(k for k in mine.keys() | theirs.keys() if mine.get(k) != theirs.get(k))
        must(not differ, f"other results than the reference: {differ[:3]}")

    def truth(self, folder: Path, stage: str) -> str:
        """Every result that is there is whole, `status` calls no stage up to date that lacks one, and nothing
        finished before the stage is lost."""
        mine, theirs = results(folder), results(self.reference)
        differ = [k for k in mine if mine[k] != theirs.get(k)]
        must(not differ, f"parts, or other results than the reference: {differ[:3]}")
        run = open_run(run_dir=str(folder))
        why = {s.name: why_stale(s, run) for s in STAGES}
        for name in (n for n, reason in why.items() if not reason):
            must(
                not (lost := outputs(self.reference, name) & theirs.keys() - mine.keys()),
                f"{name} is called up to date without {sorted(lost)[:3]}",
            )
        for name in STAGE_NAMES[: STAGE_NAMES.index(stage)]:
            must(not why[name], f"{name} was finished and is lost: {why[name]}")
        return why[stage] or "up to date, and it is"

    def moment(self, stage: str, part: tuple[float, float], by: str) -> tuple[int, float]:
        """A random moment of a part of a stage's time or of its cells: how many cells are done by then, and how
        long the next one has worked (s)."""
        cells = json.loads((self.reference / f"{stage}.ipynb").read_text())["cells"]
        ends = np.cumsum([c["metadata"]["papermill"]["duration"] or 0 for c in cells])
        drawn = self.rng.uniform(*part)
        when = ends[-1] * drawn if by == "time" else np.interp(drawn * len(ends), np.arange(len(ends) + 1), [0, *ends])
        done = int(np.searchsorted(ends, when))
        return done, float(when - (ends[done - 1] if done else 0))


def outputs(folder: Path, stage: str) -> set[str]:
    "The names of what a stage is recorded to have written, below the folder."
    return set(read_state(Run.open("mini", folder))[stage]["outputs"])


def clear(folder: Path, stage: str) -> None:
    "Delete what a stage wrote, so that its command has work to do and to lose."
    for name in outputs(folder, stage):
        (folder / name).unlink(missing_ok=True)


JOBS: list[subprocess.Popen] = []  # of the fault that strikes now


def command(folder: Path, *args: str, clock: str = "", stderr: int = subprocess.PIPE) -> subprocess.Popen:
    env = dict(
        os.environ,
        PYTHONPATH=os.pathsep.join(filter(None, [clock, os.environ.get("PYTHONPATH", "")])),
        TQDM_MININTERVAL="0",
        TQDM_MINITERS="1",
    )
    JOBS.append(
        subprocess.Popen(
            [sys.executable, "-m", "llm_routing.cli.runner", "run", "--run-dir", str(folder), *args],
            env=env,
            stdout=subprocess.DEVNULL,
            stderr=stderr,
            text=True,
            start_new_session=True,
        )
    )
    return JOBS[-1]


def one_stage(folder: Path, stage: str, *args: str, **kw) -> subprocess.Popen:
    return command(folder, "--from", stage, "--to", stage, "--force", *args, **kw)


class Watched:
    "A stage's command on a terminal of its own, where its progress bar shows how many cells are done."

    def __init__(self, folder: Path, stage: str):
        self.stage, self.said = stage, ""
        self.screen, end = pty.openpty()
        termios.tcsetwinsize(end, (40, 200))  # a terminal of no width shows no bar
        self.job = command(folder, "--from", stage, "--to", stage, stderr=end)
        os.close(end)

    def look(self) -> int:  # cells done; -1 before its first cell
        "Read what came to the terminal."
        if select.select([self.screen], [], [], 0.02)[0]:
            try:
                self.said += os.read(self.screen, 1 << 16).decode(errors="replace")
            except OSError:
                time.sleep(0.02)  # nobody holds the terminal's other end any more
        shown = re.findall(rf"{self.stage}:[^\r\n]*?(\d+)/\d+ \[", self.said)
        return int(shown[-1]) if shown else -1

    def wait_until(self, come: Callable[[], bool]) -> None:
        "Wait for something to come. Raises `Missed` when the command ends before."
        while not come():
            self.look()
            if self.job.poll() is not None:
                raise Missed(f"ended with status {self.job.returncode} before the fault")

    def communicate(self, timeout: float = 600) -> tuple[None, str]:
        "Wait for the end, as `Popen.communicate` does; all that came to the terminal."
        until = time.monotonic() + timeout
        while self.job.poll() is None and time.monotonic() < until:
            self.look()
        must(self.job.poll() is not None, "it never ended")
        while select.select([self.screen], [], [], 0)[0]:
            was = len(self.said)
            self.look()
            if len(self.said) == was:
                break
        os.close(self.screen)
        return None, self.said

    @property
    def returncode(self) -> int:
        return self.job.returncode


def at_a_moment(
    bench: Bench, folder: Path, stage: str, part: tuple[float, float], by: str = "time"
) -> tuple[Watched, str]:
    "Start a stage that has all its work before it, and wait for a random moment of it: the command, and where it is."
    clear(folder, stage)
    cells, into = bench.moment(stage, part, by)
    watched = Watched(folder, stage)
    watched.wait_until(lambda: watched.look() >= cells)
    until = time.monotonic() + into
    watched.wait_until(
        lambda: time.monotonic() > until or watched.look() > cells
    )  # at the cell's end at the latest, where it is quicker now
    wanted = outputs(bench.reference, stage)
    there = sum((folder / name).is_file() for name in wanted if not name.endswith(".ipynb"))
    n = len(json.loads((bench.reference / f"{stage}.ipynb").read_text())["cells"])
    return (
        watched,
        f"in cell {watched.look() + 1} of {n}, "
        f"{there} of {sum(not w.endswith('.ipynb') for w in wanted)} results written",
    )


def spoke(job: subprocess.Popen, status: int, says: str) -> str:
    "The job's end: the exit status, one message, no traceback."
    said = job.communicate(timeout=600)[1]
    last = said.strip().rsplit("\nllm-routing: ", 1)[-1].splitlines()[:1]
    must(job.returncode == status, f"exit status {job.returncode}, not {status}: {said[-300:]}")
    must(says in said and "Traceback" not in said, f"no clear message: {said[-400:]}")
    return "".join(last)[:160]


def kernel_of(job: subprocess.Popen) -> psutil.Process | None:
    with contextlib.suppress(psutil.Error):
        return next(
            (
                p
                for p in psutil.Process(job.pid).children(recursive=True)
                if "ipykernel_launcher" in " ".join(p.cmdline())
            ),
            None,
        )
    return None


# ---- processes ----
PARTS = {
    "first third": (0.0, 1 / 3),
    "middle": (1 / 3, 2 / 3),
    "last third": (2 / 3, 0.98),
}  # of a stage's time, or of its cells


def killed(bench: Bench, folder: Path, stage: str, what: str) -> str:
    """kill -9 of the whole process tree, at a moment drawn from the stage's time, or of the runner alone, at one
    drawn from its cells."""
    victim, _, part = what.partition(", ")
    if part == "at its start":  # before its first cell
        clear(folder, stage)
        watched, place = Watched(folder, stage), "before its first cell"
        watched.wait_until(lambda: at_work(Run.open("mini", folder)))
    else:
        watched, place = at_a_moment(bench, folder, stage, PARTS[part], "time" if victim == "tree" else "cells")
    tree = [p.pid for p in psutil.Process(watched.job.pid).children(recursive=True)] if victim == "tree" else []
    if watched.job.poll() is not None:
        raise Missed("ended before the kill")
    for pid in [watched.job.pid, *tree]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    watched.communicate()
    must(watched.returncode == -signal.SIGKILL, f"ended with status {watched.returncode}")
    return f"{place}; status: {bench.truth(folder, stage)}"


def stopped(bench: Bench, folder: Path, stage: str, what: str) -> str:
    "Ctrl-C (to the terminal's whole group) or a scheduler's SIGTERM."
    watched, place = at_a_moment(bench, folder, stage, (0, 0.9))
    os.killpg(watched.job.pid, signal.SIGINT) if what == "Ctrl-C" else os.kill(watched.job.pid, signal.SIGTERM)
    said = watched.communicate()[1]
    if watched.returncode == 0:
        raise Missed("it ended well before the signal came through")
    must(
        watched.returncode == 130 and "the same command goes on" in said and "Traceback" not in said,
        f"exit status {watched.returncode}: {said[-300:]}",
    )
    return f"{place}; stopped, and says how to go on; status: {bench.truth(folder, stage)}"


def kernel_died(bench: Bench, folder: Path, stage: str, what: str) -> str:
    watched, place = at_a_moment(bench, folder, stage, (0, 0.9))
    kernel = kernel_of(watched.job)
    if kernel is None:
        raise Missed("its kernel had ended")
    kernel.kill()
    said = watched.communicate()[1]
    if watched.returncode == 0:  # its last cell was done, and it was on its way out
        cells = json.loads((folder / f"{stage}.ipynb").read_text())["cells"]
        must(
            all(c["metadata"]["papermill"]["status"] == "completed" for c in cells if c["cell_type"] == "code"),
            "ended well with cells that did not run",
        )
        raise Missed("killed after its last cell")
    must(
        watched.returncode == 1 and "its kernel died" in said and "Traceback" not in said,
        f"no clear message: {said[-400:]}",
    )
    return f"{place}; its kernel died, and the command says so; status: {bench.truth(folder, stage)}"


def two_runs(bench: Bench, folder: Path, stage: str, what: str) -> str:
    "A second run, with other settings, while the first one works."
    job = one_stage(folder, stage)
    while job.poll() is None and not at_work(Run.open("mini", folder)):
        time.sleep(0.05)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(job.pid, signal.SIGSTOP)  # a short stage would end before the second command has started
    try:
        if job.poll() is not None or not at_work(Run.open("mini", folder)):
            raise Missed("the first run had ended already")
        said = spoke(command(folder, "--set", "seed=5"), 1, "another run is working")
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(job.pid, signal.SIGCONT)
    spoke(job, 0, "")
    bench.same(folder)
    return said


def clock_jumps(bench: Bench, folder: Path, stage: str, what: str) -> str:
    "The clock of each process jumps by a month, forwards or back, and with it the files' times of change."
    clock = folder.parent / "clock"
    clock.mkdir(exist_ok=True)
    (clock / "sitecustomize.py").write_text(JUMPY)
    job = one_stage(folder, stage, clock=str(clock))
    said = job.communicate(timeout=600)[1]
    if job.returncode:  # Jupyter waits for a kernel by the clock, and gives up when that jumps ahead
        must(
            job.returncode == 1
            and "run the same command again" in said
            and "Traceback (most" not in said.split("llm-routing: ")[-1],
            f"no clear message: {said[-300:]}",
        )
        for name in STAGE_NAMES[: STAGE_NAMES.index(stage)]:
            must(
                not (why := why_stale(STAGES[STAGE_NAMES.index(name)], open_run(run_dir=str(folder)))),
                f"{name} was finished and is lost: {why}",
            )
        bench.check(folder)
        return "stopped with a message, and went on"
    wrote, known = (set(read_state(Run.open("mini", f))[stage]["outputs"]) for f in (folder, bench.reference))
    must(wrote == known, f"recorded other outputs: {sorted(wrote ^ known)[:3]}")
    bench.same(folder)
    return f"{len(wrote)} outputs recorded"


# ---- files ----
def broken(raw: bytes, how: str, rng: np.random.Generator) -> bytes | None:
    "A file's bytes, damaged; None for a deleted file."
    if how == "truncated":
        return raw[: int(rng.integers(1, len(raw)))]
    if how == "bit flipped":
        flipped, bit = bytearray(raw), int(rng.integers(8 * len(raw)))
        flipped[bit // 8] ^= 1 << bit % 8
        return bytes(flipped)
    return {
        "emptied": b"",
        "deleted": None,
        "an HTML page": b"<html><body>404 Not Found</body></html>\n",
        "zeroed": bytes(len(raw)),
    }[how]


def put(file: Path, raw: bytes | None) -> None:
    if raw is None:
        file.unlink(missing_ok=True)
    else:
        file.write_bytes(raw)


def table_broken(bench: Bench, folder: Path, table: str, how: str) -> str:
    "A damaged table is noticed by its stage and refused by its readers."
    run = Run.open("mini", folder)
    put(run.path(table), broken((bench.reference / f"{table}.parquet").read_bytes(), how, bench.rng))
    must(
        "is missing or was changed" in why_stale(STAGES[STAGE_NAMES.index(TABLES[table])], run), "status did not notice"
    )
    try:
        rows = read_table(table, run.path(table))
    except StudyError as e:
        said = str(e).split(str(folder) + "/")[-1]
    else:
        must(
            rows.equals(read_table(table, bench.reference / f"{table}.parquet")), "other rows were read without a word"
        )
        said = "the bit changes no row; the file is made again all the same"
    return said[:160]


def table_replaced(bench: Bench, folder: Path, table: str, how: str) -> str:
    """A valid table with other rows, of another profile perhaps: used only where that is asked for, with a notice,
    and on record."""
    run = Run.open("mini", folder)
    rows = pq.read_table(bench.reference / f"{table}.parquet").to_pandas()
    (rows.iloc[:-1] if how == "a row less" else rows.iloc[::-1]).to_parquet(run.path(table))
    must(foreign(table, run), "status did not notice")
    must(
        "is missing or was changed" in why_stale(STAGES[STAGE_NAMES.index(TABLES[table])], run), "status did not notice"
    )
    if how != "used all the same":
        return "noticed"
    reader = next(s.name for s in STAGES if table in s.reads)
    spoke(one_stage(folder, reader), 0, f"{table}.parquet is not the one that {TABLES[table]} wrote")
    must(table in json.loads((folder / "provenance.json").read_text())["tables from elsewhere"], "not on record")
    return "used with a notice, and on record"


def downstream_refuses(bench: Bench, folder: Path, table: str, how: str) -> str:
    "A stage that is told to start from a damaged table fails, and says which."
    run = Run.open("mini", folder)
    put(run.path(table), broken(run.path(table).read_bytes(), how, bench.rng))
    reader = next(s.name for s in STAGES if table in s.reads)
    return spoke(one_stage(folder, reader), 1, f"{table}.parquet")


def record_broken(bench: Bench, folder: Path, name: str, how: str) -> str:
    "A damaged record, executed notebook or figure is noticed, or does not matter."
    file, good = folder / name, (bench.reference / name).read_bytes()
    put(file, broken(good, how, bench.rng))
    try:
        stale = [s.name for s in STAGES if why_stale(s, open_run(run_dir=str(folder)))]
    except StudyError as e:
        must(name == "profile.json" and "profile.json" in str(e), f"unclear: {e}")
        file.write_bytes(good)
        return str(e).split(str(folder) + "/")[-1][:160]
    if name.startswith("figures/") or name.endswith((".ipynb", ".csv", "costs.json")):
        must(bool(stale), "status did not notice")
    return f"to run again: {', '.join(stale) or 'nothing'}"


# ---- what a study is, and what is kept ----
def other_study(bench: Bench, folder: Path, where: str, how: str) -> str:
    "A profile of the same name is refused in another study's folder, and touches nothing there."
    other = Path(tempfile.mkdtemp(dir=bench.home))
    said = spoke(command(folder, "--profile", str(make_profile(other, 1))), 1, "would overwrite it")
    bench.same(folder)
    return said.replace(str(other), "")


def described_anew(bench: Bench, folder: Path, where: str, how: str) -> str:
    "Another description makes the report again, and nothing else."
    run = open_run(run_dir=str(folder), changes=["description='Quite other words'"])
    stale = [s.name for s in STAGES if why_stale(s, run)]
    must(stale == ["07_reproduction"], f"to run again: {stale}")
    run_study(run, progress=False)
    must("Quite other words" in (folder / "figures" / "index.html").read_text(), "the report keeps the old words")
    return "the report is made again"


def odd_name(bench: Bench, folder: Path, name: str, how: str) -> str:
    "A name of an LLM that would mislead is refused where it comes in."
    rows = pd.read_csv(make_profile(folder, 0).with_suffix(".csv"))
    rows.assign(llm=rows.llm.replace("cy", name)).to_csv(folder / "toy.csv", index=False)
    try:
        load_queries(load_profile(str(folder / "toy.toml")))
    except StudyError as e:
        must(str(e).isprintable() or "\n" not in name, "the name breaks the message")
        return str(e).splitlines()[0].replace(str(folder), "")[:160]
    raise Harm("the name was taken")


def kept_broken(bench: Bench, folder: Path, name: str, how: str) -> str:
    "A kept encoder with a damaged file is trained again, and is the same as before."
    home, texts = folder / "kept", ["two plus three", "a bird sings at dawn"] * 20
    place = Path(train_encoder(texts, home, steps=1, width=16))
    good = {p.name: p.read_bytes() for p in place.iterdir()}
    put(place / name, broken(good[name], how, bench.rng))
    again = Path(train_encoder(texts, home, steps=1, width=16))
    must(again == place and {p.name: p.read_bytes() for p in again.iterdir()} == good, "the broken one was taken")
    return "trained again"


def weights_replaced(bench: Bench, folder: Path, name: str, how: str) -> str:
    "Other weights in an encoder's folder, with the old size and time, give other vectors, kept or not."
    texts = ["two plus three", "a bird sings at dawn"] * 20
    place = Path(shutil.copytree(train_encoder(texts, folder / "kept", steps=1, width=16), folder / "mine"))
    file, cache, seen = place / name, folder / "vectors", []
    was, weights = file.stat(), load_file(file)
    for sign in (1, -1):
        save_file({k: sign * w for k, w in weights.items()}, file, metadata={"format": "pt"})
        os.utime(file, ns=(was.st_atime_ns, was.st_mtime_ns))
        seen.append(make_encoder(f"hf:{place}", cache).transform(texts[:2]))
        must((seen[-1] == make_encoder(f"hf:{place}").transform(texts[:2])).all(), "vectors of other weights")
    must(not (seen[0] == seen[1]).all() and file.stat().st_size == was.st_size, "the weights changed nothing")
    return "other vectors"


# ---- disks ----
@contextlib.contextmanager
def mounted(*options: str) -> Iterator[Path]:
    "A mount of one's own, for as long as it is needed."
    place = Path(tempfile.mkdtemp())
    if subprocess.run(["mount", *options, str(place)], capture_output=True).returncode:
        place.rmdir()
        raise Skipped("mounting is not permitted here")
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)
        place.rmdir()


def disk_full(bench: Bench, folder: Path, stage: str, what: str) -> str:
    "The run folder's disk has room for a part of what the stage writes; then space is freed."
    wanted = sum((bench.reference / name).stat().st_size for name in outputs(bench.reference, stage))
    with mounted("-t", "tmpfs", "-o", "size=64m", "tmpfs") as place:
        bench.copy(place)
        clear(place, stage)
        free = int(bench.rng.uniform(0, 0.9) * wanted) // 4096 * 4096
        size = os.statvfs(place).f_bavail * os.statvfs(place).f_bsize
        (place / "ballast").write_bytes(bytes(max(size - free, 0)))
        job = one_stage(place, stage)
        said = job.communicate(timeout=600)[1]
        if job.returncode == 0:
            raise Missed(f"{free // 1024} KB were enough")
        must(
            job.returncode == 1 and "the disk is full" in said and "Traceback (most" not in said,
            f"no clear message: {said[-400:]}",
        )
        bench.truth(place, stage)
        (place / "ballast").unlink()
        bench.check(place)
    return f"room for {free // 1024} of {wanted // 1024} KB: stopped, and says that the disk is full"


def read_only(bench: Bench, folder: Path, stage: str, what: str) -> str:
    with mounted("--bind", str(folder)) as place:
        if subprocess.run(["mount", "-o", "remount,ro,bind", str(place)], capture_output=True).returncode:
            raise Skipped("mounting read-only is not permitted here")
        said = spoke(one_stage(place, stage), 1, "cannot be written")
        must(
            subprocess.run(
                [sys.executable, "-m", "llm_routing.cli.runner", "status", "--run-dir", str(place)], capture_output=True
            ).returncode
            == 0,
            "status needs to write",
        )
    bench.same(folder)
    return said.replace(str(place), "")


# ---- downloads ----
class Liar(http.server.BaseHTTPRequestHandler):
    "A server that answers as the fault wants it."

    how, content = "", b""

    def do_GET(self) -> None:
        body = {
            "an HTML page": b"<html>Please log in</html>",
            "an empty answer": b"",
            "another file": b"x" * len(self.content),
            "cut at a block": self.content[: len(self.content) // 2],
            "good": self.content,
        }.get(self.how, self.content)
        status = {"status 404": 404, "status 500": 500, "status 403": 403}.get(self.how, 200)
        self.send_response(status)
        self.send_header("Content-Length", str(len(self.content) if self.how == "cut in the middle" else len(body)))
        self.end_headers()
        if self.how == "cut in the middle":
            body = body[: len(body) // 2]
        if self.how == "reset":
            return self.connection.close()
        self.wfile.write(body)

    def log_message(self, *args) -> None:
        pass


def download(bench: Bench, folder: Path, path: str, how: str) -> str:
    "A download that goes wrong says so and leaves no whole file; the next, good one works."
    entry = sources_files.registry()[path]
    Liar.how, Liar.content = how, (Path(os.environ["LLM_ROUTING_DATA"]) / path).read_bytes()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Liar)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    cache = Path(tempfile.mkdtemp(dir=folder))
    address = f"http://127.0.0.1:{1 if how == 'nobody listens' else server.server_port}"
    try:
        with mock.patch.dict(os.environ, LLM_ROUTING_MIRROR=address, LLM_ROUTING_CACHE=str(cache)):
            os.environ.pop("LLM_ROUTING_DATA")
            try:
                sources_files.fetch(path)
            except StudyError as e:
                said = str(e)
            else:
                raise Harm("a wrong file was taken")
            left = [p for p in cache.rglob("*") if p.is_file() and p.suffix != ".part" and p.name != ".lock"]
            must(not left, "a failed download left a file under its own name")
            Liar.how, os.environ["LLM_ROUTING_MIRROR"] = "good", f"http://127.0.0.1:{server.server_port}"
            must(
                sources_files.fetch(path).read_bytes() == Liar.content and len(Liar.content) == entry.bytes,
                "the next download failed",
            )
    finally:
        server.shutdown()
        server.server_close()
    return said.split(": ", 1)[-1][:160].replace(address, "")


# ---- the campaign ----
ANSWERS = (
    "cut in the middle",
    "cut at a block",
    "an HTML page",
    "an empty answer",
    "another file",
    "status 404",
    "status 403",
    "status 500",
    "reset",
    "nobody listens",
)
RECORDS = (
    "state.json",
    "provenance.json",
    "profile.json",
    "04_routers.ipynb",
    "router_costs.json",
    "figures/tables/main_results.csv",
    "figures/tables/checksums.csv",
)
NAMES = ("Ada", "oracle", "NA", "a\nb", "cy\u200b", "cafe\u0301", "best single")
FILES = ("queries", "outcomes", "scores", "selections", "results")
HOWS = (
    "truncated",
    "truncated",
    "bit flipped",
    "bit flipped",
    "bit flipped",
    "emptied",
    "deleted",
    "an HTML page",
    "zeroed",
)


Fault = tuple[str, Callable, str, str]  # its kind, what does it, where, and how


def groups() -> list[tuple[list[Fault], bool]]:
    "Faults that strike one folder after another, and whether the study is then run again and compared."
    every: list[tuple[list[Fault], bool]] = []
    for s in STAGE_NAMES[::-1]:
        kills: list[Fault] = [
            ("killed", killed, s, f"{w}, {part}")
            for part in ("first third", "middle", "last third")
            for w in ("tree", "runner")
        ]
        kills += [("killed", killed, s, "tree, at its start")]
        kills += [("stopped", stopped, s, w) for w in ("Ctrl-C", "SIGTERM")] + [
            ("kernel died", kernel_died, s, "kill -9")
        ]
        every += [(kills, True), ([("disk full", disk_full, s, "room for a part")], False)]
    every += [([("read-only folder", read_only, s, "mounted so")], False) for s in STAGE_NAMES]
    if os.environ.get("LLM_ROUTING_DATA"):
        every += [
            ([("download", download, p, h) for h in ANSWERS], False)
            for p in ("gsm8k/test.jsonl", "routellm/gsm8k_responses.csv")
        ]
    every += [
        ([("record broken", record_broken, n, h) for h in ("truncated", "emptied", "zeroed", "an HTML page")], True)
        for n in RECORDS
    ]
    every += [([("other study", other_study, "profile", "of the same name")], False)]
    every += [([("described anew", described_anew, "07_reproduction", "--set description")], False)]
    every += [([("odd name", odd_name, name, "as an LLM's")], False) for name in NAMES]
    every += [
        ([("kept thing broken", kept_broken, n, h)], False)
        for n in ("model.safetensors", "tokenizer.json", "manifest.json")
        for h in ("truncated", "bit flipped", "emptied", "deleted")
    ]
    every += [([("weights replaced", weights_replaced, "model.safetensors", "same size and time")], False)]
    every += [([("table broken", table_broken, t, h) for h in HOWS], True) for t in TABLES]
    every += [
        ([("table replaced", table_replaced, t, h) for h in ("other order", "a row less")], False)
        for t in TABLES
        if t != "responses"
    ]
    every += [([("table replaced", table_replaced, "results", "used all the same")], True)]
    every += [
        ([("stage on a broken table", downstream_refuses, t, h)], False) for t in FILES for h in ("truncated", "zeroed")
    ]
    every += [
        ([(kind, do, s, how)], False)
        for s in STAGE_NAMES
        for kind, do, how in (("two runs", two_runs, "other seed"), ("clock jumps", clock_jumps, "a month"))
    ]
    return every


def short(every: list[tuple[list[Fault], bool]]) -> list[tuple[list[Fault], bool]]:
    "One fault of each kind, where it is quick."
    seen: set[str] = set()
    some = []
    for faults, again in every:
        few = [
            f
            for f in faults
            if (f[2] == "01_queries" or f[2] not in STAGE_NAMES) and f[0] not in seen and not seen.add(f[0])
        ]  # type: ignore[func-returns-value]
        if few:
            some.append((few, again and few[0][0] in ("killed", "table broken")))
    return some


def attempt(bench: Bench, fault: Fault, folder: Path) -> tuple[str, str]:
    "A fault's verdict and what was seen of it. One that came too late is tried three times."
    _, do, where, how = fault
    verdict, seen = "", ""
    for _ in range(3):
        try:
            return "held", do(bench, folder, where, how)
        except Missed as e:
            verdict, seen = "missed", str(e)
        except Harm as e:
            return "HARM", str(e)
        except Skipped as e:
            return "skipped", str(e)
        except Exception as e:
            return (
                "HARM",
                f"the fault itself broke ({type(e).__name__}: {e})",
            )  # to be looked at, and the campaign goes on
        finally:
            for job in JOBS:
                job.kill()  # none is left, unless something broke
            JOBS.clear()
    return verdict, seen


def strike(bench: Bench, faults: list[Fault], again: bool) -> Iterator[dict]:
    "A group of faults as rows of the table; harm that shows only in the end is laid at the last one's door."
    folder = bench.copy()
    for i, fault in enumerate(faults):
        began = time.perf_counter()
        verdict, seen = attempt(bench, fault, folder)
        if again and i + 1 == len(faults):
            try:
                bench.check(folder)
            except Harm as e:
                verdict, seen = "HARM", f"{seen}; {e}"
        seen = " ".join(seen.replace(str(folder), "").replace(str(bench.home), "").split())
        yield {
            "kind": fault[0],
            "where": fault[2],
            "how": fault[3],
            "seen": seen,
            "verdict": verdict,
            "seconds": round(time.perf_counter() - began, 1),
        }
    shutil.rmtree(folder, ignore_errors=True)


def set_up(home: Path, seed: int) -> Bench:
    "The reference run."
    profile = make_profile(home, seed)
    run_study(open_run(str(profile), str(home / "reference")), progress=False)
    return Bench(home, home / "reference", np.random.default_rng(seed))


def campaign(
    quick: bool = False, only: Sequence[str] = (), where: Sequence[str] = (), seed: int = 0, out: Path | None = None
) -> pd.DataFrame:
    "Try the faults; a row each."
    chosen = [
        (some, again)
        for faults, again in (short(groups()) if quick else groups())
        if (some := [f for f in faults if (not only or f[0] in only) and (not where or f[2] in where)])
    ]
    rows: list[dict] = []
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    with tempfile.TemporaryDirectory() as home:
        bench = set_up(Path(home), seed)
        for faults, again in chosen:
            for row in strike(bench, faults, again):
                rows.append({"seed": seed, "commit": commit, **row})
                print(f"{len(rows)}/{sum(len(f) for f, _ in chosen)} {json.dumps(row)}", flush=True)
                if out:
                    pd.DataFrame(rows).to_csv(out, index=False)
    return pd.DataFrame(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="one fault of each kind")
    parser.add_argument("--only", nargs="+", default=[], metavar="KIND", help="some kinds of fault")
    parser.add_argument("--where", nargs="+", default=[], metavar="PLACE", help="some stages, tables or files")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="a CSV file for the table")
    args = parser.parse_args()
    signal.signal(
        signal.SIGINT, signal.default_int_handler
    )  # a shell's background job ignores Ctrl-C, and so would its children
    table = campaign(args.short, args.only, args.where, args.seed, args.out)
    print(table.groupby(["kind", "verdict"]).size().unstack(fill_value=0).to_string())
    harm = table[table.verdict == "HARM"]
    print(
        f"{len(table)} faults, {(table.verdict == 'skipped').sum()} skipped, "
        f"{(table.verdict == 'missed').sum()} missed, {len(harm)} did harm"
    )
    sys.exit(len(harm) > 0)


if __name__ == "__main__":
    main()
