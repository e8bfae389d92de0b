"""RouterDC's protocol: routers trained jointly on its five training files, tested on its five test files, with 5
seeds and a paired test.

    LLM_ROUTING_DATA=../shared/data python benchmarks/bench_routers.py [NAME ...]

Writes data/routers/joint.csv (a row per router and seed), joint_summary.csv (means, gains, intervals) and
leave_one_task_out.csv.
"""

import json
import os
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd

from llm_routing.routing.training import count_parameters, routing_times, tune
from llm_routing.routing.base import log_loss, make_router, share_away
from llm_routing.study.tables import project_root

FILES = {
    "mmlu": "mmlu_{}",
    "gsm8k": "gsm8k-{}",
    "cmmlu": "cmmlu_{}",
    "arc_challenge": "arc_challenge_{}",
    "humaneval": "humaneval_{}",
}
SHARES = (
    "gsm8k",
    "humaneval",
)  # tasks whose score is the share of right samples; elsewhere an answer is right if its score is positive
SEEDS = range(5)
HOME = project_root() / "data" / "routers"
CACHE = project_root() / "runs" / "cache"
STATIC = {"encoder": "surface+static"}
ROUTERS = {
    "recommended": {},
    "prior": {},
    "mlc": {},
    "sc": {},
    "clustering_tfidf": {},
    "knn": {"encoder": "static"},
    "logistic": STATIC,
    "win_rate": STATIC,
    "ridge": STATIC,
    "random_forest": STATIC,
    "gbt": {},
    "uniroute": {"encoder": "static"},
    "elo": {"encoder": "static"},
    "sw_ranking": {"encoder": "static"},
    "mlp": STATIC,
    "matrix_factorisation": STATIC,
    "mirt": STATIC,
    "graph": STATIC,
    "routerdc": STATIC,
    "routerdc_finetuned": {},
}
TRIALS = {"routerdc": 6}  # Optuna's budget, on 15% of train held out
FIXED = {
    "prior",
    "mlc",
    "sc",
    "knn",
    "logistic",
    "win_rate",
    "ridge",
    "elo",
    "sw_ranking",
}  # nothing random but the held-out fifth
SHARPEN = {"routerdc", "routerdc_finetuned"}  # learn from the files' probabilities, as the original does
BALANCED = {"routerdc_finetuned"}  # learns from 1,000 queries of each task, as the original does


def load(split: str) -> tuple[list[str], np.ndarray, np.ndarray, np.ndarray, list[str]]:
    "Texts, scores and raw scores (n_queries, n_llms), tasks and LLMs of one split of all five tasks."
    texts, scores, raw, tasks = [], [], [], []
    for task, name in FILES.items():
        for row in json.loads(
            (Path(os.environ["LLM_ROUTING_DATA"]) / "routerdc" / f"{name.format(split)}.json").read_text()
        ):
            values = [float(v) for v in row["scores"].values()]
            texts.append(row["question"])
            raw.append(values)
            scores.append(values if task in SHARES else [float(v > 0) for v in values])
            tasks.append(task)
    return texts, np.array(scores), np.array(raw), np.array(tasks), [m.split("/")[-1] for m in row["scores"]]


def balanced(tasks: np.ndarray, seed: int, share: float = 0.15, size: int = 1000) -> tuple[np.ndarray, np.ndarray]:
    """Rows to learn from, `size` of each task (those of a small task again and again), and held-out rows, a `share` of
    that of each task."""
    rng, learn, held = np.random.default_rng(seed), [], []
    for t in FILES:
        own = rng.permutation(np.flatnonzero(tasks == t))
        cut = int(share * len(own))
        learn.append(np.resize(own[cut:], size))
        held.append(np.resize(own[:cut], int(share * size)))
    return np.concatenate(learn), np.concatenate(held)


def task_means(values: np.ndarray, tasks: np.ndarray) -> dict[str, float]:
    "Percent right per task, and their unweighted average."
    means = {t: 100 * values[tasks == t].mean() for t in FILES}
    return means | {"average": float(np.mean(list(means.values())))}


def average_draws(values: np.ndarray, tasks: np.ndarray, resamples: int = 4000, seed: int = 0) -> np.ndarray:
    """Bootstrap draws of the unweighted average; `values` is (n_seeds, n_queries): queries are drawn within their
    task, seeds as a whole."""
    rng, out = np.random.default_rng(seed), np.zeros(resamples)
    for t in FILES:
        part = values[:, tasks == t]
        counts = rng.multinomial(part.shape[1], np.full(part.shape[1], 1 / part.shape[1]), resamples) / part.shape[1]
        out += (
            100
            * (counts @ part.T)[
                np.arange(resamples), np.random.default_rng(seed + 1).integers(len(part), size=resamples)
            ]
            / len(FILES)
        )
    return out


def run(names: list[str]) -> None:
    "Train and test each router with each seed; earlier rows of `joint.csv` are kept."
    texts, scores, raw, source, llms = load("train")
    asked, truth, _, tasks, _ = load("test")

    def part(ids, labels):
        return ([texts[i] for i in ids], labels[ids])

    file = HOME / "joint.csv"
    done = pd.read_csv(file) if file.is_file() else pd.DataFrame(columns=["router", "seed"])
    for name in names:
        labels, params = raw if name in SHARPEN else scores, dict(ROUTERS[name])
        if name in TRIALS:
            order = np.random.default_rng(0).permutation(len(texts))
            cut = int(0.15 * len(order))
            params |= tune(
                name, part(order[cut:], labels), part(order[:cut], labels), llms, TRIALS[name], cache=CACHE, **params
            )
            print(name, params, flush=True)
        for seed in [0] if name in FIXED - SHARPEN else SEEDS:
            if ((done["router"] == name) & (done["seed"] == seed)).any():
                continue
            train, validation = (texts, labels), None
            if name in BALANCED:
                train, validation = (part(ids, known) for ids, known in zip(balanced(source, seed), (labels, scores)))
            began = time.perf_counter()
            router = make_router(name, seed=seed, cache=CACHE, **params).fit(*train, llms, validation)
            fit_s, p = time.perf_counter() - began, router.predict(asked)
            scored = truth[np.arange(len(truth)), p.argmax(1)]
            np.save(CACHE / f"joint-{name}-{seed}.npy", scored)
            row = {
                "router": name,
                "seed": seed,
                **task_means(scored, tasks),
                "log_loss": log_loss(p, truth),
                "percent_away": 100 * share_away(p),
                "parameters": count_parameters(router),
                "fit_s": fit_s,
                **routing_times(router, asked[::7]),
            }
            done = pd.concat([done, pd.DataFrame([row])], ignore_index=True)
            done.round(4).to_csv(file, index=False)
            print(row, flush=True)


def summarise() -> None:
    """Means over seeds, 95% intervals over queries and seeds, and the gain over the LLM with the best mean over the
    training tasks."""
    _, truth, _, tasks, _ = load("test")
    _, scores, _, source, _ = load("train")
    done = pd.read_csv(HOME / "joint.csv")
    best = int(np.mean([scores[source == t].mean(0) for t in FILES], axis=0).argmax())
    single = truth[None, :, best]
    rows = []
    for n, part in done.groupby("router", sort=False):
        values = np.stack([np.load(CACHE / f"joint-{n}-{s}.npy") for s in part["seed"]])
        low, high = np.quantile(average_draws(values - single, tasks), [0.025, 0.975])
        row = {"router": n, "seeds": len(values), **task_means(values.mean(0), tasks)}
        gain = row["average"] - task_means(single[0], tasks)["average"]
        rows.append(
            row | {"gain": gain, "gain_low": low, "gain_high": high, "percent_away": part["percent_away"].mean()}
        )
    by_task = np.concatenate([truth[tasks == t][:, scores[source == t].mean(0).argmax()] for t in FILES])
    bounds = {"best LLM over the training tasks": single[0], "best LLM of each task": by_task, "oracle": truth.max(1)}
    rows += [{"router": n, "seeds": 0, **task_means(v, tasks)} for n, v in bounds.items()]
    pd.DataFrame(rows).round(4).to_csv(HOME / "joint_summary.csv", index=False)
    print(pd.DataFrame(rows).round(3).to_string())


def leave_one_task_out(name: str = "recommended") -> None:
    "Trained on four tasks' training files, tested on the fifth's test file, beside the LLM that is best on the four."
    texts, scores, _, source, llms = load("train")
    asked, truth, _, tasks, _ = load("test")
    rows = []
    for task in FILES:
        rest, own = np.flatnonzero(source != task), np.flatnonzero(tasks == task)
        p = (
            make_router(name, cache=CACHE, **ROUTERS[name])
            .fit([texts[i] for i in rest], scores[rest], llms)
            .predict([asked[i] for i in own])
        )
        queries, kinds = (
            100 * truth[own][:, m.argmax()].mean()
            for m in (scores[rest].mean(0), np.mean([scores[source == t].mean(0) for t in FILES if t != task], axis=0))
        )
        rows.append(
            {
                "router": name,
                "left_out": task,
                "n": len(own),
                "accuracy": 100 * truth[own, p.argmax(1)].mean(),
                "best_single_by_queries": queries,
                "best_single_by_tasks": kinds,
                "best_single_on_it": 100 * truth[own].mean(0).max(),
                "pool_mean": 100 * truth[own].mean(),
            }
        )
        print(rows[-1], flush=True)
    pd.DataFrame(rows).round(2).to_csv(HOME / "leave_one_task_out.csv", index=False)


if __name__ == "__main__":
    CACHE.mkdir(parents=True, exist_ok=True)
    run(sys.argv[1:] or list(ROUTERS))
    summarise()
    leave_one_task_out()
