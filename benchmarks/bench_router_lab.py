"""Why routers stand on one plateau, and what they do with what they never saw: the tables that the router
laboratory shows.

    llm-routing run --profile recorded --to 03_extraction
    LLM_ROUTING_DATA=../shared/data python benchmarks/bench_router_lab.py [TABLE ...]

Reads the run of `recorded`, for `finetuned` that of `recorded_finetuned`, and RouterDC's files; writes
`data/routers/<table>.csv`. Everything is chosen on training queries; only gains are read on test. The environment
variable SMALL_LLM names a folder of SmolLM2-135M-Instruct if it is not to come from the hub.
"""

import json
import os
import sys
from dataclasses import replace

import numpy as np
import pandas as pd
from bench_routers import FILES, load

from llm_routing.routing.base import make_router
from llm_routing.routing.encoders import hidden_states, make_encoder
from llm_routing.routing.recommended import leading
from llm_routing.routing.router_lab import feature_gains, gain_of, join_pool, newcomer_table, pool_gains
from llm_routing.routing.router_lab import with_interval, without_own_group
from llm_routing.routing import training  # noqa: F401 (so that routers are found by name)
from llm_routing.study.runs import Run
from llm_routing.study.tables import matrix, project_root
from llm_routing.study.tasks import tasks

HOME = project_root() / "data" / "routers"
CACHE = project_root() / "runs" / "cache"
SMALL_LLM = os.environ.get("SMALL_LLM", "HuggingFaceTB/SmolLM2-135M-Instruct")
DATA: dict = {}


def recorded(dataset: str, pool: str) -> dict:
    """Texts, scores, categories and LLMs of a pool, train (with validation) and test; cross-fitted data sets as their
    first fold."""
    if not DATA:
        run = Run.open("recorded")
        DATA["queries"], DATA["outcomes"], DATA["pools"] = run.read("queries"), run.read("outcomes"), run.profile.pools
    each = tasks(DATA["queries"], DATA["outcomes"], DATA["pools"])
    task = next(t for t in each if (t.dataset, t.pool) == (dataset, pool))
    out = {"llms": task.llms}
    for part, splits in {"train": ("train", "validation"), "test": ("test",)}.items():
        rows = task.queries[task.queries["split"].isin(splits)]
        scores = matrix(task.outcomes(DATA["outcomes"]), "score", list(rows["query_id"]), task.llms)
        out[part] = list(rows["text"]), scores, rows["subject"].to_numpy()
    return out


def plateau_sizes(draws: int = 1) -> pd.DataFrame:
    "Gain of the recommended router against the number of training queries."
    rows = []
    for pool in ("small", "mid"):
        data = recorded("mmlu_pro", pool)
        (texts, scores, _), (asked, truth, _) = data["train"], data["test"]
        for size in (500, 1000, 2000, 4000, len(texts)):
            for draw in range(draws if size < len(texts) else 1):
                ids = np.random.default_rng(draw).permutation(len(texts))[:size]
                router = make_router("recommended", seed=draw).fit([texts[i] for i in ids], scores[ids], data["llms"])
                gain = gain_of(router.predict(asked), truth, scores[ids].mean(0).argmax())
                rows.append({"pool": pool, "size": size, **gain})
                print(rows[-1], flush=True)
    return pd.DataFrame(rows).groupby(["pool", "size"], sort=False).mean().reset_index()


def plateau_features() -> pd.DataFrame:
    "Gain of one ridge on features from poor to rich."
    data = {pool: recorded("mmlu_pro", pool) for pool in ("small", "equals", "mid", "paper_kin")}
    texts, _, category = data["small"]["train"]
    asked, _, asked_category = data["small"]["test"]
    features = {
        "category alone": (pd.get_dummies(category).to_numpy(float), pd.get_dummies(asked_category).to_numpy(float))
    }
    for name, e in {
        "surface": make_encoder("surface"),
        "word vectors (static)": make_encoder("static", CACHE),
        "sentence encoder (MiniLM)": make_encoder("minilm", CACHE),
        "hidden states of a small LLM (first 64 tokens)": replace(hidden_states(SMALL_LLM, CACHE), max_length=64),
    }.items():
        features[name] = np.asarray(e.fit_transform(texts), float), np.asarray(e.transform(asked), float)
    words = make_encoder("words")
    X = words.fit_transform(texts)
    V = leading(X, 512)
    features["words (512 directions)"] = np.asarray(X @ V, float), np.asarray(words.transform(asked) @ V, float)
    for a, b in (("words (512 directions)", "category alone"), ("words (512 directions)", "sentence encoder (MiniLM)")):
        features[f"{a} + {b}"] = tuple(np.hstack(pair) for pair in zip(features[a], features[b]))
    each = [feature_gains(features, d["train"][1], d["test"][1]).assign(pool=pool) for pool, d in data.items()]
    return pd.concat(each)[["pool", "features", "width", "gain", "gain_low", "gain_high", "percent_away"]]


def plateau_pools() -> pd.DataFrame:
    "Pairs and triples of all LLMs, by how far the second best is behind the best."
    data = recorded("mmlu_pro", "all")
    (texts, scores, _), (asked, truth, _) = data["train"], data["test"]
    p = make_router("recommended").fit(texts, scores, data["llms"]).predict(asked)
    tables = []
    for size in (2, 3):
        pools, each = pool_gains(p, truth, scores, data["llms"], size)
        pools["second_lags_by"] = pd.cut(pools["lag"], [-1, 1, 2, 4, 8, 16, 100]).astype(str)
        pools["sure"] = 100.0 * (pools["gain"] > 1.96 * pools["error"])
        pools["loses"] = 100.0 * (pools["gain"] < -1.96 * pools["error"])
        groups = pools.groupby("second_lags_by", sort=False)
        table = groups[["room", "gain", "percent_away", "sure", "loses"]].mean()
        table.insert(0, "pools", groups.size())
        table["percent_of_room"] = 100 * groups["gain"].sum() / groups["room"].sum()
        ends = [with_interval(each[:, groups.indices[lag]].mean(1)) for lag in table.index]
        table = table.assign(gain_low=[e["gain_low"] for e in ends], gain_high=[e["gain_high"] for e in ends])
        tables.append(table.reset_index().assign(llms=size))
    out = pd.concat(tables)
    out["order"] = out["second_lags_by"].str.extract(r"\((-?\d+)").astype(float)
    return out.sort_values(["llms", "order"]).drop(columns="order")[
        ["llms", "second_lags_by", "pools", "room", "gain", "gain_low", "gain_high", "percent_of_room", "percent_away"]
        + ["sure", "loses"]
    ]


def new_llm() -> pd.DataFrame:
    "Each of the three best LLMs of `small` joins with 50, 200 and 800 outcomes."
    data, each = recorded("mmlu_pro", "small"), {}
    parts = data["train"][:2], data["test"][:2], data["llms"]
    for j in map(int, np.argsort(-data["train"][1].mean(0))[:3]):
        each[data["llms"][j]] = join_pool("recommended", *parts, j, [50, 200, 800])
    return newcomer_table(each)


def unseen_categories(pool: str = "small") -> pd.DataFrame:
    "Each category left out of training in turn."
    data, rows = recorded("mmlu_pro", pool), []
    texts, scores, groups = data["train"]
    seen = 100 * without_own_group("recommended", texts, scores, groups, data["llms"])
    for group in [*sorted(set(groups)), "all"]:
        own = seen[(groups == group) | (group == "all")]
        gain = own[:, 0] - own[:, 1]
        row = {"pool": pool, "left_out": group, "n": len(gain), "best_single": own[:, 1].mean()}
        rows.append(row | {"gain": gain.mean(), "error": gain.std() / len(gain) ** 0.5})
    return pd.DataFrame(rows)


SHARED = {  # GSM8K's name -> MMLU-Pro's
    "Meta-Llama-3.1-8B-Instruct": "Meta-Llama-3_1-8B-Instruct",
    "Meta-Llama-3.1-70B-Instruct": "Meta-Llama-3_1-70B-Instruct",
    "Mixtral-8x7B-Instruct-v0.1": "Mixtral-8x7B-Instruct-v0.1",
    "command-r": "c4ai-command-r-v01",
    "gemini-1.5-flash": "gemini-1.5-flash-002",
    "gemini-1.5-pro": "gemini-1.5-pro-002",
}


def other_benchmark() -> pd.DataFrame:
    "Trained on one benchmark and tested on the other, for the LLMs that both have (the gemini ones in two versions)."
    gsm8k, pro = recorded("gsm8k", "all"), recorded("mmlu_pro", "all")
    columns = {"gsm8k": [gsm8k["llms"].index(m) for m in SHARED]}
    columns["mmlu_pro"] = [pro["llms"].index(m) for m in SHARED.values()]
    parts, rows = {"gsm8k": gsm8k, "mmlu_pro": pro}, []
    for learned, tested in (("mmlu_pro", "gsm8k"), ("gsm8k", "mmlu_pro")):
        texts, scores = parts[learned]["train"][0], parts[learned]["train"][1][:, columns[learned]]
        asked = [t for part in ("train", "test") for t in parts[tested][part][0]]
        truth = np.vstack([parts[tested][part][1] for part in ("train", "test")])[:, columns[tested]]
        router = make_router("recommended").fit(texts, scores, list(SHARED))
        row = {"trained_on": learned, "tested_on": tested, "familiar_percent": 100 * router.familiar(asked).mean()}
        rows.append(row | gain_of(router.predict(asked), truth, scores.mean(0).argmax()))
    return pd.DataFrame(rows)


def unseen_kinds(seeds: int = 5) -> pd.DataFrame:
    "Trained on RouterDC's five training files: texts of kinds that are in none of them, and where they are sent."
    texts, scores, _, source, llms = load("train")
    asked = pd.read_json(HOME / "unseen_kinds.jsonl", lines=True)
    best = llms[int(np.mean([scores[source == t].mean(0) for t in FILES], axis=0).argmax())]
    rows = []
    for seed in range(seeds):
        router = make_router("recommended", seed=seed).fit(texts, scores, llms)
        for kind, part in asked.groupby("kind", sort=False):
            routes = router.routes(part["text"])
            unfamiliar = 100 * (1 - router.familiar(list(part["text"])).mean())
            row = {"kind": kind, "n": len(part), "percent_unfamiliar": unfamiliar}
            rows.append(row | {"percent_to_the_best_over_tasks": 100 * routes.get(best, 0), "best": best})
    return pd.DataFrame(rows).groupby(["kind", "best", "n"], sort=False).mean().reset_index()


def finetuned() -> pd.DataFrame:
    "Gain and cost of encoders that are fine-tuned, beside routers on counts of words."
    run = Run.open("recorded_finetuned")
    gained = pd.read_csv(run.figures / "tables" / "router_gains.csv")
    keys = ["dataset", "pool", "router"]
    costs = pd.DataFrame(json.loads((run.folder / "router_costs.json").read_text()))
    costs = costs.groupby(keys)[["fit_s", "batched_ms", "single_ms"]].mean().reset_index()
    gained = gained.assign(percent_away=100 * gained["share_away"])
    gained = gained.rename(columns={"queries_low": "gain_low", "queries_high": "gain_high"})
    columns = [*keys, "n", "accuracy", "gain", "gain_low", "gain_high", "percent_away"]
    return gained[columns].merge(costs, on=keys)


TABLES = {
    f.__name__: f
    for f in (
        unseen_kinds,
        plateau_features,
        plateau_pools,
        plateau_sizes,
        new_llm,
        unseen_categories,
        other_benchmark,
        finetuned,
    )
}


if __name__ == "__main__":
    for name in sys.argv[1:] or TABLES:
        table = TABLES[name]()
        table.round(2).to_csv(HOME / f"{name}.csv", index=False)
        print(name, "\n", table.round(2).to_string(), flush=True)
