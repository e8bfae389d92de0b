"""Kill a sampling run at random moments, again and again, and compare its final table with an uninterrupted run's, byte by byte.

    python benchmarks/kill_campaign.py [--kills 20] [--queries 60] [--seed 0]

Samples the whole pool of `mini` on a slice of its test queries, into a store of its own. Each kill is a row of
`benchmarks/kill_campaign.csv`. Exits 1 where the tables differ.
"""
import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

from llm_routing.store import Store

CHILD = """
import sys
import torch
torch.set_num_threads(1)
from llm_routing.generation import answer_queries, live_queries
from llm_routing.queries import load_queries
from llm_routing.store import Store
from llm_routing.study import load_profile
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
    if job.stdout.readline() != b"go\n": sys.exit("the sampling process did not start")
    return job


def kept(folder: Path) -> int:
    store = Store(folder / "killed")
    return sum(len(store.read(shelf)) for shelf in store.shelves())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--queries", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--table", default=Path(__file__).with_name("kill_campaign.csv"))
    args = parser.parse_args()
    rng = np.random.default_rng(args.seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        whole, began = start(folder, "whole", args.queries), time.monotonic()
        if whole.wait(): sys.exit("the uninterrupted run failed")
        took, killed, rows = time.monotonic() - began, 0, []
        print(f"uninterrupted: {took:.1f} s", flush=True)
        while killed < args.kills:
            job = start(folder, "killed", args.queries)
            time.sleep(wait := took * rng.uniform(0, 2 / args.kills))
            if job.poll() is not None: break
            os.kill(job.pid, signal.SIGKILL)
            job.wait()
            killed += 1
            rows.append(("kill", killed, round(wait, 2), kept(folder), ""))
            print(f"kill {killed}: {rows[-1][3]} responses kept", flush=True)
        if start(folder, "killed", args.queries).wait(): sys.exit("the last run failed")
        same = (folder / "whole.parquet").read_bytes() == (folder / "killed.parquet").read_bytes()
        rows.append(("end", killed, "", kept(folder), same))
        pd.DataFrame(rows, columns=["event", "kills", "seconds_alive", "responses_kept", "same_table"]).to_csv(args.table, index=False)
        print(f"{killed} kills: the final table is {'the same' if same else 'NOT the same'} as the uninterrupted run's")
    sys.exit(not same)


if __name__ == "__main__": main()
