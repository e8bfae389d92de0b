"""Stops a run at each rename: what lies on the disk just before and just after it is what a kill there would leave.

    python campaigns/renames.py [--stages 02_generation ...] [--again 12] [--out campaigns/renames.csv]

A small study (two tiny LLMs, an encoder in a folder) is run whole. Then each stage is run once more with its outputs
and all caches removed, under a hook in every process that copies the run folder before and after each `os.replace` and
`os.rename`. So every rename is met, and every moment between two files that belong together. Of each copy is checked
that `status` calls no stage up to date whose outputs are not those of the whole run, and that no stage before is lost.
Then the study is run again from copies, all of them or `--again` that are spread over the stage (chapter 06 alone
renames over a hundred figure files, and reads none of them), and has to end as the whole run did, byte by byte. Exits 1
where one does not.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

from llm_routing.cli.running import open_run, run_study
from llm_routing.cli.stages import STAGE_NAMES, STAGES, read_state, why_stale
from llm_routing.routing.encoders import train_encoder
from llm_routing.study.runs import Run
from llm_routing.study.tables import StudyError, project_root

PROFILE = """
name = "small"
description = "A small study to interrupt"
[source]
kind = "generate"
datasets = ["mini-math"]
queries = 12
[generation]
samples = 2
max_tokens = 16
latency = "none"
few_shot = 0
commit_every_s = 0
batch_size = 20
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
HOOK = """
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
CACHES = ("cache", "responses_store")
MEASURED = ("latency.csv",)  # seconds that a stage took here: other ones each time


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
    "A run's tables and its figures' data."
    files = [*folder.glob("*.parquet"), *(folder / "figures").rglob("*.csv")]
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in files if p.name not in MEASURED}


def freeze(study: Path, stage: str, home: Path) -> list[Path]:
    "Run one stage with nothing left of it, and copy the run folder at each rename; the copies, in order."
    folder, frozen, hook = home / "run", home / "frozen", home / "hook"
    for place in (folder, frozen):
        shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(study / "run", folder)
    for name in read_state(Run.open("mini", folder))[stage]["outputs"]:
        (folder / name).unlink()
    for name in CACHES:
        shutil.rmtree(folder / name, ignore_errors=True)
    hook.mkdir(exist_ok=True)
    frozen.mkdir()
    (hook / "sitecustomize.py").write_text(HOOK)
    path = os.pathsep.join(filter(None, [str(hook), os.environ.get("PYTHONPATH", "")]))
    command = [sys.executable, "-m", "llm_routing.cli.runner", "run", "--from", stage, "--to", stage]
    env = os.environ | {"PYTHONPATH": path, "FREEZE": str(folder), "FROZEN": str(frozen)}
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


def rerun(folder: Path, whole: dict[str, bytes], last: str = "") -> str:
    "How the study, run again, differs from the whole run; empty where it does not."
    try:
        run_study(open_run(run_dir=str(folder)), last=last, progress=False)
    except StudyError as e:
        return f"the next run failed: {e}"
    mine = results(folder)
    differ = sorted(k for k in mine.keys() | whole.keys() if mine.get(k) != whole.get(k))
    return f"other results than the whole run's: {differ[:3]}" if differ else ""


def campaign(
    study: Path,  # that of `make_study`, run into `run`
    stages: list[str],
    home: Path,
    again: int = 0,  # moments of a stage that are run on from; 0: all
    last: str = "",  # the last stage that was run; the study's if not given
    out: Path | None = None,  # a CSV file for the rows so far
) -> pd.DataFrame:
    "Stop each stage at each rename: a row for each moment."
    rows = []
    for stage in stages:
        whole, copies = results(study / "run"), freeze(study, stage, home)
        chosen = {round(i) for i in np.linspace(0, len(copies) - 1, again or len(copies))}
        for i, copy in enumerate(copies):
            _, moment, name = copy.name.split(" ", 2)
            fault = untruth(copy, stage, whole) or (rerun(copy, whole, last) if i in chosen else "")
            rows.append((stage, moment, name, i in chosen, fault or "held"))
            shutil.rmtree(copy)
        print(stage, len(copies), "moments,", len(chosen), "run on from", flush=True)
        if out:
            table(rows).to_csv(out, index=False)
    return table(rows)


def table(rows: list[tuple]) -> pd.DataFrame:
    "The rows as a table; a temporary file's random name is left out."
    frame = pd.DataFrame(rows, columns=["stage", "moment", "file", "again", "verdict"])
    return frame.assign(file=frame.file.str.replace(r"[0-9a-f]{16,}", "*", regex=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stages", nargs="+", default=STAGE_NAMES, choices=STAGE_NAMES)
    parser.add_argument("--again", type=int, default=12, help="moments of a stage to run on from; 0: all")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("renames.csv"))
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        study = Path(home) / "study"
        study.mkdir()
        run_study(open_run(str(make_study(study)), str(study / "run")), progress=False)
        found = campaign(study, args.stages, Path(home), args.again, out=args.out)
    harm = found[found.verdict != "held"]
    print(f"{len(found)} moments, {found.again.sum()} run on from, {len(harm)} did harm")
    print(harm.to_string() if len(harm) else "")
    sys.exit(len(harm) > 0)


if __name__ == "__main__":
    main()
