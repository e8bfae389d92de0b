"""How long the whole evaluation takes, and how it grows.

    python benchmarks/bench_evaluation.py            # both parts; writes benchmarks/evaluation.csv
    python benchmarks/bench_evaluation.py --quick    # smaller sizes, writes nothing

Part 1 is a usual study: 30 systems of 7 LLMs on 1,319 queries, 10,000 paired resamples, intervals, gaps, tests, Holm and ranks. It must
take under 5 s on 2 cores. The same resampling written as a loop over resamples is timed beside it, on fewer resamples and scaled up.
Part 2 scores up to 1,000,000 queries with 100 LLMs: policies, bounds, intervals and tests, under 60 s and 8 GiB, in time linear in queries.
Everything is made up from a fixed seed; sizes, not numbers, matter here. `cpu_seconds` is the processor time of all threads: on a busy
machine it is the steadier measure of the two.
"""
import argparse
import resource
import time
from pathlib import Path

import numpy as np

from llm_routing.policies import BOUNDS, Known, Outcomes, Scores, apply_policy, settle_arrays, upper_bound
from llm_routing.statistics import bootstrap_means, gap_closed, holm, interval, mean_intervals, paired_tests, rank_intervals


def usual_study(systems: int = 30, queries: int = 1319, resamples: int = 10_000) -> dict:
    "Seconds for a usual study, and for its bootstrap as a plain loop."
    rng = np.random.default_rng(0)
    values = rng.binomial(10, rng.beta(2, 1, (queries, systems))) / 10
    began, began_cpu = time.perf_counter(), time.process_time()
    draws = bootstrap_means(values, resamples=resamples)
    mean_intervals(values, draws)
    interval(gap_closed(draws, draws[:, [0]], draws[:, [1]]), queries)
    holm(paired_tests(values, values[:, 0], permutations=resamples))
    rank_intervals(draws)
    seconds, cpu, few = time.perf_counter() - began, time.process_time() - began_cpu, 200
    began = time.perf_counter()
    for _ in range(few): values[rng.integers(0, queries, queries)].mean(0)
    return {"part": "usual study", "queries": queries, "llms": 7, "systems": systems, "seconds": seconds, "cpu_seconds": cpu,
            "loop_bootstrap_over_whole": (time.perf_counter() - began) * resamples / few / seconds}


def large_study(queries: int, llms: int = 100) -> dict:
    "Seconds and peak memory for policies, bounds, intervals and tests on many queries."
    rng = np.random.default_rng(0)
    p = rng.random((queries, llms), dtype=np.float32)
    score = (rng.random((queries, llms), dtype=np.float32) < p).astype(np.float32)
    blank = np.broadcast_to(np.float32(np.nan), p.shape)
    seconds = np.broadcast_to(np.linspace(.5, 5, llms, dtype=np.float32), p.shape)
    names = [f"llm-{i}" for i in range(llms)]
    began, began_cpu = time.perf_counter(), time.process_time()
    truth = Outcomes([], names, score, seconds, blank)
    few = slice(0, 2000)
    s = Scores(names, p, p >= .5, p[few], score[few], np.linspace(.5, 5, llms))
    choices = [lambda n=n: apply_policy(n, s) for n in ("argmax", "random_top3", "penalised", "two_llm_threshold", "fallback")]
    choices += [lambda f=BOUNDS[k]: f(truth, Known(score[few])) for k in (("oracle", ""), ("best_single", ""), ("random", ""))]
    choices += [lambda: upper_bound(truth, s)]
    earned = np.stack([settle_arrays(make(), truth)[0] for make in choices], 1)
    values = np.hstack([earned, score])
    draws = bootstrap_means(values)
    mean_intervals(values, draws)
    holm(paired_tests(values, score[:, score.mean(0).argmax()]))
    rank_intervals(draws)
    return {"part": "large study", "queries": queries, "llms": llms, "systems": values.shape[1],
            "seconds": time.perf_counter() - began, "cpu_seconds": time.process_time() - began_cpu,
            "peak_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20}


if __name__ == "__main__":
    import pandas as pd
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    rows = [usual_study(resamples=1000 if quick else 10_000)]
    for n in (10_000, 20_000) if quick else (125_000, 250_000, 500_000, 1_000_000): rows.append(large_study(n))
    table = pd.DataFrame(rows).round(2)
    print(table.to_string(index=False))
    if not quick: table.to_csv(Path(__file__).with_name("evaluation.csv"), index=False)
