"""Kill a sampling run at random moments, again and again, and compare its final table with an uninterrupted run's, byte
by byte.

    python campaigns/kills.py [--kills 20] [--queries 60] [--seed 0]

Samples the whole pool of `mini` on a slice of its test queries, into a store of its own; when that comes through, it
starts again with an empty store until there were enough kills. Each kill and each end is a row of
`campaigns/kills.csv`. Exits 1 where an end's table differs.
"""

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

from llm_routing.generation.store import Store

CHILD = """
import sys
import torch
torch.set_num_threads(1)
from llm_routing.generation.sampling import answer_queries
from llm_routing.outcomes.live_check import live_queries
from llm_routing.sources.queries import load_queries
from llm_routing.generation.store import Store
from llm_routing.study.profiles import load_profile
store, out, n = Store(sys.argv[1]), sys.argv[2], int(sys.argv[3])
profile = load_profile("mini")
settings = profile.generation.model_copy(update={"commit_every_s": 0.0, "batch_size": 100})
queries = live_queries(load_queries(profile), n, 0)
print("go", flush=True)
answer_queries(queries, settings, store, [store]).to_parquet(out)
"""


def start(folder: Path, name: str, queries: int) -> subprocess.Popen:
    "A sampling process, past its imports."
    command = [sys.executable, "-c", CHILD, str(folder / name), str(folder / f"{name}.parquet"), str(queries)]
    job = subprocess.Popen(command, stdout=subprocess.PIPE)
    if job.stdout.readline() != b"go\n":
        sys.exit("the sampling process did not start")
    return job


def kept(folder: Path) -> int:
    "How many responses the killed run's store has."
    store = Store(folder / "killed")
    return sum(len(store.read(section)) for section in store.sections())


def one_round(folder: Path, queries: int, took: float, left: int, rng: np.random.Generator) -> list[tuple]:
    "Kill at random moments until the run comes through, or `left` times; then let it end and compare."
    shutil.rmtree(folder / "killed", ignore_errors=True)
    (folder / "killed.parquet").unlink(missing_ok=True)
    rows = []
    while len(rows) < left:
        job, wait = start(folder, "killed", queries), took * rng.uniform(0, 0.6)
        try:
            job.wait(wait)
        except subprocess.TimeoutExpired:
            os.kill(job.pid, signal.SIGKILL)
            job.wait()
            rows.append(("kill", round(wait / took, 3), kept(folder), ""))
            print(rows[-1], flush=True)
        else:
            break
    if not (folder / "killed.parquet").exists() and start(folder, "killed", queries).wait():
        sys.exit("the last run failed")
    same = (folder / "whole.parquet").read_bytes() == (folder / "killed.parquet").read_bytes()
    return [*rows, ("end", "", kept(folder), same)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--queries", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--table", default=Path(__file__).with_name("kills.csv"))
    args = parser.parse_args()
    rng, rows = np.random.default_rng(args.seed), []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        whole, began = start(folder, "whole", args.queries), time.monotonic()
        if whole.wait():
            sys.exit("the uninterrupted run failed")
        took = time.monotonic() - began
        print(f"uninterrupted: {took:.1f} s", flush=True)
        while (killed := sum(r[0] == "kill" for r in rows)) < args.kills:
            rows += one_round(folder, args.queries, took, args.kills - killed, rng)
    table = pd.DataFrame(rows, columns=["event", "moment", "responses_kept", "same_table"])
    table.to_csv(args.table, index=False)
    ends = table[table.event == "end"].same_table
    print(f"{args.kills} kills, {len(ends)} ends: the table was the uninterrupted run's at {int(ends.sum())} of them")
    sys.exit(not ends.all())


if __name__ == "__main__":
    main()
