"""What the study itself costs: start-up, papermill, and each stage's time and memory.

    python benchmarks/bench_studies.py [startup] [papermill] [studies] [seconds] [--profiles mini public]

startup    import of each module in a process of its own: processor seconds, the best of three; writes startup.csv
papermill  a notebook of 60 cells with a megabyte of outputs, run by papermill as the runner sets it, by papermill
left to itself, and by
           nbclient, which papermill stands on; processor seconds of the process that runs it; writes papermill.csv
studies    each stage of a profile by the command line, in a folder of its own: processor seconds and the largest
process's memory;
           writes studies.csv
seconds    what each stage took in the profiles' runs at hand, as they noted it; replaces these profiles' rows in
           data/timings/stages.csv, from which first runs are estimated (for a TOML file: those of its kind of source)
Processor seconds are the steadier measure on a busy machine.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import nbclient
import nbformat
import papermill
import pandas as pd

from llm_routing.cli.running import QUIET, SAVING, open_run
from llm_routing.cli.stages import STAGE_NAMES, read_state
from llm_routing.study.tables import project_root

ROOT = project_root()
STAGES = ROOT / "data" / "timings" / "stages.csv"


def spent(*command: str) -> tuple[float, float, float]:
    "Wall seconds, processor seconds and peak MiB of a command with all its children."
    began = time.perf_counter()
    job = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=ROOT)
    _, status, used = os.wait4(job.pid, 0)
    if os.waitstatus_to_exitcode(status):
        sys.exit(f"{' '.join(command)} failed")
    return time.perf_counter() - began, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024


def startup() -> pd.DataFrame:
    "Processor seconds of an import, beside an empty process."
    modules = ["", *sorted(p.stem for p in (ROOT / "llm_routing").glob("[a-z]*.py"))]
    return pd.DataFrame(
        [
            {
                "module": m or "(Python alone)",
                "cpu_seconds": min(
                    spent(sys.executable, "-c", f"import llm_routing.{m}" if m else "")[1] for _ in range(3)
                ),
            }
            for m in modules
        ]
    )


def by_papermill(**saving):
    def execute(book, folder: Path) -> None:
        nbformat.write(book, folder / "in.ipynb")
        papermill.execute_notebook(
            str(folder / "in.ipynb"), str(folder / "out.ipynb"), progress_bar=False, extra_arguments=QUIET, **saving
        )

    return execute


def by_nbclient(book, folder: Path) -> None:
    nbformat.write(nbclient.execute(book), folder / "out.ipynb")


def overhead(cells: int = 60, letters: int = 20_000) -> pd.DataFrame:
    "Processor seconds of the process that runs a notebook, without its kernel's."
    ways = {
        "papermill, as the runner sets it": by_papermill(**SAVING),
        "papermill, left to itself": by_papermill(),
        "nbclient": by_nbclient,
    }
    rows = []
    for way, execute in ways.items():
        taken = []
        for _ in range(3):
            book = nbformat.v4.new_notebook(
                cells=[nbformat.v4.new_code_cell(f"print('x' * {letters})") for _ in range(cells)]
            )
            book.metadata["kernelspec"] = {"name": "python3", "display_name": "python3", "language": "python"}
            began = time.process_time()
            with tempfile.TemporaryDirectory() as folder:
                execute(book, Path(folder))
            taken.append(time.process_time() - began)
        rows.append({"way": way, "cells": cells, "cpu_seconds": sorted(taken)[1]})
    return pd.DataFrame(rows).assign(over_nbclient=lambda t: t.cpu_seconds / t.cpu_seconds.iloc[-1])


def studies(profiles: list[str]) -> pd.DataFrame:
    "Each stage of each profile."
    rows = []
    for profile in profiles:
        with tempfile.TemporaryDirectory() as folder:
            for stage in STAGE_NAMES:
                _, cpu, peak = spent(
                    sys.executable,
                    "-m",
                    "llm_routing.cli.runner",
                    "run",
                    "--profile",
                    profile,
                    "--run-dir",
                    folder,
                    "--from",
                    stage,
                    "--to",
                    stage,
                )
                rows.append({"profile": profile, "stage": stage, "cpu_seconds": cpu, "peak_mib": peak})
                print(rows[-1], flush=True)
    return pd.DataFrame(rows)


def seconds(profiles: list[str]) -> pd.DataFrame:
    "The table of stages' seconds, with the rows of these profiles made again."
    table = pd.read_csv(STAGES)
    for profile in profiles:
        run = open_run(profile, make=False)
        study = run.profile.source.kind if profile.endswith(".toml") else profile
        took = {stage: noted["seconds"] for stage, noted in sorted(read_state(run).items())}
        rows = pd.DataFrame({"study": study, "stage": took.keys(), "seconds": took.values()})
        table = pd.concat([table[table.study != study], rows.assign(queries=len(run.read("queries")))])
    return table.sort_values(["study", "stage"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", default=["startup", "papermill", "studies"])
    parser.add_argument("--profiles", nargs="+", default=["mini", "public"])
    args = parser.parse_args()
    make = {"startup": startup, "papermill": overhead}
    make |= {"studies": partial(studies, args.profiles), "seconds": partial(seconds, args.profiles)}
    for part in args.parts:
        table = make[part]().round(2)
        print(table.to_string(index=False))
        table.to_csv(STAGES if part == "seconds" else Path(__file__).with_name(f"{part}.csv"), index=False)


if __name__ == "__main__":
    main()
