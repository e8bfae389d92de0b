"""How long the whole evaluation takes, and how it grows.

    python benchmarks/bench_evaluation.py            # all parts; writes benchmarks/evaluation.csv and evaluation.svg
    python benchmarks/bench_evaluation.py --quick    # smaller sizes, writes nothing

Part 1 is a usual study: 30 systems of 7 LLMs on 1,319 queries, 10,000 paired resamples, intervals, gaps, tests, Holm
and ranks. It must take under 5 s on 2 cores. The same resampling written as a loop over resamples is timed beside it,
on fewer resamples and scaled up. Part 2 scores up to 1,000,000 queries with 100 LLMs: policies, bounds, intervals and
tests, under 60 s and 8 GiB, in time linear in queries. Part 3 spends a budget on 500 queries exactly, beside the same
integer program given to the solver whole. Everything is made up from a fixed seed; sizes, not numbers, matter here.
`cpu_seconds` is the processor time of all threads, `load` how many processes wanted a core at the time (1: the cores
were busy, and no more). On a busy machine wall seconds say little, and processor time is the steadier measure of the
two.
"""

import argparse
import os
import resource
import time
from pathlib import Path

import numpy as np

from llm_routing.policies.bounds import BOUNDS, Known, upper_bound
from llm_routing.policies.choices import Outcomes, Scores, settle_arrays
from llm_routing.policies.policies import apply_policy, integer_program, knapsack
from llm_routing.study.statistics import (
    bootstrap_means,
    gap_closed,
    holm,
    interval,
    mean_intervals,
    paired_tests,
    rank_intervals,
)


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
    for _ in range(few):
        values[rng.integers(0, queries, queries)].mean(0)
    return {
        "part": "usual study",
        "queries": queries,
        "llms": 7,
        "systems": systems,
        "seconds": seconds,
        "cpu_seconds": cpu,
        "loop_bootstrap_over_whole": (time.perf_counter() - began) * resamples / few / seconds,
    }


def large_study(queries: int, llms: int = 100) -> dict:
    "Seconds and peak memory for policies, bounds, intervals and tests on many queries."
    rng = np.random.default_rng(0)
    p = rng.random((queries, llms), dtype=np.float32)
    score = (rng.random((queries, llms), dtype=np.float32) < p).astype(np.float32)
    blank = np.broadcast_to(np.float32(np.nan), p.shape)
    seconds = np.broadcast_to(np.linspace(0.5, 5, llms, dtype=np.float32), p.shape)
    names = [f"llm-{i}" for i in range(llms)]
    began, began_cpu = time.perf_counter(), time.process_time()
    truth = Outcomes([], names, score, seconds, blank)
    few = slice(0, 2000)
    s = Scores(names, p, p >= 0.5, p[few], score[few], np.linspace(0.5, 5, llms))
    choices = [
        lambda n=n: apply_policy(n, s) for n in ("argmax", "random_top3", "penalised", "two_llm_threshold", "fallback")
    ]
    choices += [
        lambda f=BOUNDS[k]: f(truth, Known(score[few])) for k in (("oracle", ""), ("best_single", ""), ("random", ""))
    ]
    choices += [lambda: upper_bound(truth, s)]
    earned = np.stack([settle_arrays(make(), truth)[0] for make in choices], 1)
    values = np.hstack([earned, score])
    draws = bootstrap_means(values)
    mean_intervals(values, draws)
    holm(paired_tests(values, score[:, score.mean(0).argmax()]))
    rank_intervals(draws)
    return {
        "part": "large study",
        "queries": queries,
        "llms": llms,
        "systems": values.shape[1],
        "seconds": time.perf_counter() - began,
        "cpu_seconds": time.process_time() - began_cpu,
        "peak_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
    }


def budget_study(queries: int = 500, llms: int = 7, seed: int = 0) -> dict:
    "Seconds for one exact budget, and for the whole integer program, in processor time; the two must earn the same."
    rng = np.random.default_rng(seed)
    p, price = rng.random((queries, llms)).round(3), rng.gamma(2, 1, llms)
    budget = queries * (price.min() + price[p.argmax(1)].mean()) / 2
    began, clock = time.process_time(), time.perf_counter()
    core = knapsack(p, price, budget)
    seconds, cpu, began = time.perf_counter() - clock, time.process_time() - began, time.process_time()
    whole = integer_program(p, price, np.ones(p.shape, bool), budget)
    earned = [p[np.arange(queries), c].sum() for c in (core, whole)]
    assert abs(earned[0] - earned[1]) < 1e-5, earned
    return {
        "part": "exact budget",
        "queries": queries,
        "llms": llms,
        "systems": 1,
        "seconds": seconds,
        "cpu_seconds": cpu,
        "whole_program_over_core": (time.process_time() - began) / cpu,
    }


def draw(table, path: Path) -> None:
    "Seconds of the large study over queries, with a line through the origin and the largest size."
    import matplotlib.pyplot as plt
    from llm_routing.findings.figure_files import COLUMN, SERIES, style

    rows = table[table["part"] == "large study"]
    with style():
        fig, ax = plt.subplots(figsize=(COLUMN, 2.2))
        for c, words, colour, mark in (
            ("seconds", "wall", SERIES[0], "o"),
            ("cpu_seconds", "processor, all threads", SERIES[1], "s"),
        ):
            ax.plot(rows["queries"] / 1e6, rows[c], mark, color=colour, label=words)
            ax.plot([0, rows["queries"].max() / 1e6], [0, rows[c].iloc[-1]], "--", color=colour, linewidth=0.7)
        ax.axhline(60, color="#6b6b6b", linewidth=0.7)
        ax.annotate("limit: 60 s", (0, 60), xytext=(2, -2), textcoords="offset points", va="top", fontsize=5.5)
        ax.set(
            xlabel=f"million queries ({rows['llms'].iloc[0]} LLMs, {rows['systems'].iloc[0]} systems)",
            ylabel="seconds",
            ylim=(0, None),
            xlim=(0, None),
        )
        ax.legend(loc="lower right")
        fig.savefig(path, metadata={"Date": None})


if __name__ == "__main__":
    import pandas as pd

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    rows, loads = [], []

    def add(row):
        rows.append(row)
        loads.append(os.getloadavg()[0] / os.cpu_count())

    add(usual_study(resamples=1000 if quick else 10_000))
    for n in (10_000, 20_000) if quick else (125_000, 250_000, 500_000, 1_000_000):
        add(large_study(n))
    add(budget_study(100 if quick else 500))
    table = pd.DataFrame(rows).assign(load=loads).round(2)
    print(table.to_string(index=False))
    if not quick:
        table.to_csv(Path(__file__).with_name("evaluation.csv"), index=False)
        draw(table, Path(__file__).with_name("evaluation.svg"))
