"""Kill a run on real vLLM, and look what is kept: its kernel, vLLM's engine process, the runner, in turn.

    python campaigns/vllm_kills.py [--kills 10] [--queries 20] [--limit 120] [--folder DIR] [--set KEY=VALUE ...]

Runs the shipped tiny LLMs under the names of the pool of `paper`, from the first stage to the last. A kill comes when a
next tenth of the responses is there; a run that has ended is started again by the same command. Each kill and the end
is a row of `campaigns/vllm_kills.csv`. Exits 1 where a response was lost or made twice, a kill was noticed later than
`--limit` seconds, an engine outlived the run, or the study did not come to its end.
"""

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from itertools import cycle, islice
from pathlib import Path

import pandas as pd
import psutil

from llm_routing.generation.store import Store
from llm_routing.study.profiles import load_profile

WORDS = {"kernel": "ipykernel_launcher", "engine": "EngineCore", "runner": "llm_routing.cli.runner"}
PROFILE = """extends = "paper"
name = "paper_tiny"
source = {{ datasets = ["mini-math", "mini-mcq"], queries = {queries} }}

[generation]
max_tokens = 64
few_shot = 0
batch_size = 64
commit_every_s = 0.5
latency_queries = 4
engine_args = {{ max_model_len = 512, gpu_memory_utilization = 0.3 }}
pool = [{pool}]

[generation.prompts]
zcot_system = ""
zcot = "{{query}}\\nLet's think step by step."
fcot = "<START_QUESTION>\\n{{query}}\\n<END_QUESTION>\\n<START_ANSWER>\\n"

[routers.params]
mlc_finetuned = {{ model = "own", epochs = 2, rate = 2e-3 }}
sc_finetuned = {{ model = "own", epochs = 2, rate = 2e-3 }}
clustering_tfidf = {{ ks = [5] }}
clustering_minilm = {{ encoder = "static", ks = [5] }}
"""


def write_profile(folder: Path, queries: int) -> Path:
    "The profile `paper` with tiny LLMs: base ones for base ones, chat ones for chat ones."
    tiny: dict[str, list[str]] = {}
    for llm in load_profile("mini").generation.pool:
        tiny.setdefault(llm.prompt, []).append(llm.model)
    pool = [
        f'{{ name = "{m.name}", model = "{tiny[m.prompt].pop()}", prompt = "{m.prompt}", dtype = "float32" }}'
        for m in load_profile("paper").generation.pool
    ]
    file = folder / "paper_tiny.toml"
    file.write_text(PROFILE.format(queries=queries, pool=", ".join(pool)), encoding="utf-8")
    return file


def alive(process: psutil.Process) -> bool:
    "Whether a process runs."
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


class Study:
    "A run of the study that is started again whenever it has ended."

    def __init__(self, folder: Path, command: list[str]):
        self.run, self.log, self.command, self.starts = folder / "run", folder / "log.txt", command, 0
        self.start()

    def start(self) -> None:
        self.starts += 1
        self.job = psutil.Popen(self.command, stdout=open(self.log, "ab"), stderr=subprocess.STDOUT)

    def find(self, what: str) -> psutil.Process | None:
        "The runner, its kernel, or the engine's process; None while there is none."
        found = [self.job] if alive(self.job) else []
        found += self.job.children(recursive=True) if found else []
        return next((p for p in found if alive(p) and WORDS[what] in " ".join([p.name(), *p.cmdline()])), None)

    def kept(self) -> int:
        "How many different responses the store has."
        store = Store(self.run / "responses_store")
        sections = [s for s in store.sections() if not s.startswith("latency-")]
        return sum(len(store.read(s)[["request", "sample"]].drop_duplicates()) for s in sections)

    def said(self, text: bytes, at: int) -> bool:
        "Whether the log has a text behind a place."
        return text in self.log.read_bytes()[at:]


def until(true, limit: float) -> float:
    "Seconds until something is true; the limit where it is not by then."
    began = time.monotonic()
    while not true() and time.monotonic() - began < limit:
        time.sleep(0.2)
    return time.monotonic() - began


def kill(study: Study, what: str, limit: float) -> dict:
    "Kill a process of the run; when the run noticed, what the store has, and which processes are left."
    family, place, before = study.job.children(recursive=True), study.log.stat().st_size, study.kept()
    target = study.find(what)
    os.kill(target.pid, signal.SIGKILL)
    kernels = [p for p in family if alive(p) and WORDS["kernel"] in " ".join(p.cmdline())]
    signs = {
        "kernel": lambda: not alive(study.job),
        # one that had done its work is followed by the next LLM's
        "engine": lambda: study.said(b"LLM '", place) or study.find(what) not in (None, target),
        "runner": lambda: not any(map(alive, kernels)),
    }
    noticed = until(signs[what], limit)
    return {"killed": what, "kept_before": before, "noticed_s": round(noticed, 1), "family": family}


def reached(study: Study, what: str, target: int, starts: int) -> bool:
    "Whether it is time for the next kill; a run that has ended is started again, `starts` times at most."
    if not alive(study.job):
        if study.job.wait() == 0 or study.starts >= starts:
            sys.exit(f"the run ended by itself with status {study.job.wait()} after {study.starts} starts: see the log")
        study.start()
    return study.find("engine") is not None and study.find(what) is not None and study.kept() >= target


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--queries", type=int, default=20, help="of each data set and split")
    parser.add_argument("--limit", type=float, default=120, help="seconds within which a kill is to be noticed")
    parser.add_argument("--folder", type=Path, help="for the run and its log; a temporary one if not given")
    parser.add_argument("--set", action="append", default=[], help="a setting on top, as of `llm-routing run`")
    parser.add_argument("--table", default=Path(__file__).with_name("vllm_kills.csv"))
    args = parser.parse_args()
    folder = args.folder or Path(tempfile.mkdtemp())
    more = [word for change in args.set for word in ("--set", change)]
    command = [sys.executable, "-m", "llm_routing.cli.runner", "run", "--profile"]
    study = Study(folder, [*command, str(write_profile(folder, args.queries)), "--run-dir", str(folder / "run"), *more])
    wanted, rows = 2 * 3 * 7 * 10 * args.queries, []  # data sets, splits, LLMs, samples
    for i, what in enumerate(islice(cycle(WORDS), args.kills)):
        target = wanted * i // args.kills
        while not reached(study, what, target, args.kills + 2):
            time.sleep(0.3)
        old = {p for row in rows for p in row.get("family", [])} - set(study.job.children(recursive=True))
        outlived = sum(map(alive, old))
        rows.append(kill(study, what, args.limit) | {"start": study.starts, "outlived": outlived})
        print({k: v for k, v in rows[-1].items() if k != "family"}, flush=True)
    while study.job.wait() and study.starts < args.kills + 2:
        study.start()
    responses = pd.read_parquet(study.run / "responses.parquet")
    table = pd.DataFrame(rows).drop(columns="family")
    end = {"killed": "none", "kept_before": len(responses), "start": study.starts, "outlived": 0}
    table = pd.concat([table, pd.DataFrame([end])])
    table.to_csv(args.table, index=False)
    whole = len(responses) == wanted and not responses.duplicated(["query_id", "llm", "sample"]).any()
    grew = table.kept_before.is_monotonic_increasing
    prompt = table.noticed_s.dropna().lt(args.limit).all() and not table.outlived.any()
    print(f"status {study.job.returncode}; all responses once: {whole}; none lost: {grew}; noticed in time: {prompt}")
    sys.exit(study.job.returncode or not (whole and grew and prompt))


if __name__ == "__main__":
    main()
