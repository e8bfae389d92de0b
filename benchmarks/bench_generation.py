"""Sampling with vLLM: this study's scheme against vLLM's `generate` alone, and against the original's scheme, in one
run.

    PYTHON benchmarks/bench_generation.py [--llm NAME] [--queries 1000] [--rounds 5] [--ways study generate]

PYTHON is the interpreter of the environment with vLLM (see engines_agree.py). Three ways on one loaded LLM, each
first in turn:

    study     the stage's way: one request per prompt with n = 10, kept in a response store as they finish
    generate  vLLM's `generate` with the same requests, nothing kept
    original  every prompt ten times, n = 2 each, one of the two thrown away (the original's `sample_gen.py`)

Reported in `benchmarks/generation.csv`: seconds by the clock and of the processor (of this process and vLLM's, for a
machine that others use too), and the medians of the rounds' ratios; times are of this machine, not to be compared with
others'.
"""

import argparse
import os
import tempfile
import time
from pathlib import Path

import pandas as pd
import psutil

from llm_routing.generation.llms import token_ids
from llm_routing.generation.vllm_engine import VLLMEngine, sampling_fields
from llm_routing.generation.sampling import answer_queries, requests, sampling_of
from llm_routing.outcomes.live_check import live_queries
from llm_routing.sources.queries import load_queries
from llm_routing.generation.store import Store
from llm_routing.study.profiles import load_profile


def processor_seconds() -> float:
    "Processor time so far, of this process and those below it."
    here = psutil.Process()
    return sum(sum(p.cpu_times()[:2]) for p in [here, *here.children(recursive=True)])


def ratios(rounds: pd.DataFrame) -> pd.DataFrame:
    "What the ways that were measured took, over each other, in each round."
    table = pd.DataFrame(index=rounds.index)
    for unit in ("s", "cpu_s"):
        for a, b in (("original", "study"), ("study", "generate")):
            if {f"{a}_{unit}", f"{b}_{unit}"} <= set(rounds):
                table[f"{a}_over_{b}_{unit}"] = rounds[f"{a}_{unit}"] / rounds[f"{b}_{unit}"]
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--llm", default="")
    parser.add_argument("--queries", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--ways", nargs="+", default=["study", "generate", "original"])
    parser.add_argument("--table", default=Path(__file__).with_name("generation.csv"))
    args = parser.parse_args()
    os.environ.setdefault(
        "VLLM_CPU_KVCACHE_SPACE", "1"
    )  # GiB; vLLM's own choice takes all of a machine's memory and more
    profile = load_profile("mini")
    settings = profile.generation
    llm = next(m for m in settings.pool if args.llm in ("", m.name)).model_copy(update={"dtype": "float32"})
    settings = settings.model_copy(
        update={
            "engine": "vllm",
            "pool": [llm],
            "batch_size": 128,
            "latency": "none",
            "engine_args": {"enforce_eager": True, "max_model_len": 512},
        }
    )
    queries = live_queries(load_queries(profile), args.queries, 0)
    engine, sampling = VLLMEngine(llm, settings), sampling_of(llm, settings)
    engine.close = lambda: None  # one loaded LLM for all rounds
    work = [w for _, w in requests(queries, llm, settings, sampling)]
    prompts = [engine.vllm.TokensPrompt(prompt_token_ids=ids) for ids in token_ids(llm, [w.prompt for w in work])]
    params = engine.vllm.SamplingParams(**sampling_fields(work[0], sampling, engine.seeded))

    def study() -> int:
        with tempfile.TemporaryDirectory() as folder:
            return len(answer_queries(queries, settings, Store(folder), [Store(folder)], make=lambda *a: engine))

    def generate() -> int:
        return sum(len(o.outputs) for o in engine.model.generate(prompts, params, use_tqdm=False))

    def original() -> int:
        twice = params.clone()
        twice.n = 2
        extended = [p for p in prompts for _ in range(settings.samples)]
        return sum(len(o.outputs[:1]) for o in engine.model.generate(extended, twice, use_tqdm=False))

    ways = {"study": study, "generate": generate, "original": original}
    names, taken = args.ways, []
    engine.model.generate(prompts[:50], params, use_tqdm=False)  # warm
    for turn in range(args.rounds):
        row = {}
        for name in [*names, *names][turn % len(names) :][: len(names)]:  # each way is first in turn
            engine.model.llm_engine.reset_prefix_cache()
            start, used = time.perf_counter(), processor_seconds()
            made = ways[name]()
            row |= {f"{name}_s": time.perf_counter() - start, f"{name}_cpu_s": processor_seconds() - used}
            print(f"{name:9} {made} completions kept in {row[f'{name}_s']:.1f} s", flush=True)
        taken.append(row)
    rounds = pd.DataFrame(taken)
    table = pd.concat([rounds, ratios(rounds)], axis=1).round(3)
    table.loc["median"] = table.median().round(3)
    table.insert(0, "completions", made)
    table.rename_axis("round").to_csv(args.table)
    print(f"{llm.name}, {len(work)} queries x {settings.samples} samples\n{table.to_string()}")


if __name__ == "__main__":
    main()
