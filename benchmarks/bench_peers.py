"""The kNN and MLP routers beside those of LLMRouter's package, on the same queries, embeddings and outcomes.

    LLM_ROUTING_DATA=../shared/data python benchmarks/bench_peers.py [--repeats 5]

Needs an environment of its own that also sees this package's, with `pip install --no-deps llmrouter-lib==0.4.0
litellm datasets peft torch-geometric`. Writes benchmarks/peers.csv: seconds of fitting and routing by both, the ratio
of theirs to ours (above 1: ours is quicker), and the accuracy that each reaches. The queries are RouterDC's five
training files, split in two by a seed. Embeddings are made once and given to both, so that their cost is in neither's
time. Theirs are measured from their classes' own methods; where routing a query one by one reads the model's file
again each time, as theirs does, that is a row of its own.
"""

import argparse
import contextlib
import io
import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from unittest import mock

from llm_routing.routing import base as routers_base
from llm_routing.routing import training as routers
import numpy as np
import pandas as pd
import torch
import yaml

from bench_routers import load
from llm_routing.routing.encoders import make_encoder


class Given:
    "An encoder that looks embeddings up: what both sides are given."

    def __init__(self, known: dict[str, np.ndarray], *lists: list[str]):
        self.known, self.stacked = (
            known,
            {(len(texts), texts[0], texts[-1]): np.stack([known[t] for t in texts]) for texts in lists},
        )

    def transform(self, texts) -> np.ndarray:
        ready = self.stacked.get((len(texts), texts[0], texts[-1]))
        return np.stack([self.known[t] for t in texts]) if ready is None else ready

    fit_transform = transform


def prepare(
    folder: Path, texts: list[str], scores: np.ndarray, llms: list[str], X: np.ndarray, hparam: dict, kind: str
) -> Path:
    "The peer's settings and data files."
    torch.save(torch.tensor(X), folder / "embeddings.pt")
    with open(folder / "routing.jsonl", "w", encoding="utf-8") as f:
        for i, (t, row) in enumerate(zip(texts, scores)):
            for m, v in zip(llms, row):
                f.write(json.dumps({"query": t, "model_name": m, "performance": float(v), "embedding_id": i}) + "\n")
    settings = {
        "data_path": {
            "query_embedding_data": str(folder / "embeddings.pt"),
            "routing_data_train": str(folder / "routing.jsonl"),
        },
        "hparam": hparam,
        "model_path": {
            "ini_model_path": str(folder / "none"),
            "save_model_path": str(folder / f"m.{kind}"),
            "load_model_path": str(folder / f"m.{kind}"),
        },
    }
    (folder / "settings.yaml").write_text(yaml.safe_dump(settings))
    return folder / "settings.yaml"


def median_seconds(f: Callable, repeats: int) -> tuple[float, object]:
    "The median of a call's wall seconds, and what it last gave; silently."
    taken, given = [], None
    for _ in range(repeats):
        began = time.perf_counter()
        with contextlib.redirect_stdout(io.StringIO()):
            given = f()
        taken.append(time.perf_counter() - began)
    return sorted(taken)[len(taken) // 2], given


def compare(
    name: str,
    ours,
    theirs: tuple,
    texts: list[str],
    scores: np.ndarray,
    asked: list[str],
    truth: np.ndarray,
    llms: list[str],
    known: dict,
    hparam: dict,
    repeats: int,
    setting: str,
) -> list[dict]:
    "Rows of one router: fit, routing all at once, one by one."
    router_class, trainer_class, module, kind = theirs
    X = np.stack([known[t] for t in texts])
    rows = []
    with tempfile.TemporaryDirectory() as place:
        file = prepare(Path(place), texts, scores, llms, X, hparam, kind)
        with contextlib.redirect_stdout(io.StringIO()):
            peer = router_class(str(file))
        fit, mine = median_seconds(lambda: ours().fit(texts, scores, llms), repeats)
        peer_fit, _ = median_seconds(lambda: trainer_class(peer).train(), repeats)
        route, p = median_seconds(lambda: mine.predict(asked).argmax(1), repeats)
        Y = np.stack([known[t] for t in asked])
        trained = trainer_class(peer)
        with contextlib.redirect_stdout(io.StringIO()):
            trained.train()
        batch = (
            (lambda: trained.model.predict(torch.tensor(Y)).tolist())
            if kind == "pt"
            else (lambda: trained.model.predict(Y))
        )
        peer_route, picked = median_seconds(batch, repeats)
        names = [peer.idx_to_model[k] for k in picked] if kind == "pt" else list(picked)
        with mock.patch.object(module, "get_longformer_embedding", lambda t: torch.tensor(known[t])):
            some = asked[:50]
            one, _ = median_seconds(lambda: [mine.predict([t]) for t in some], repeats)
            peer_one, _ = median_seconds(lambda: [peer.route_single({"query": t}) for t in some], 1)
    earned = (
        100 * truth[np.arange(len(truth)), p].mean(),
        100 * truth[np.arange(len(truth)), [llms.index(m) for m in names]].mean(),
    )
    for part, n, a, b in (
        ("fit", len(texts), fit, peer_fit),
        ("route all at once", len(asked), route, peer_route),
        ("route one by one", len(some), one, peer_one),
    ):
        rows.append(
            {
                "router": name,
                "setting": setting,
                "part": part,
                "queries": n,
                "seconds": a,
                "peer_seconds": b,
                "ratio": b / a,
                "accuracy": round(earned[0], 2),
                "peer_accuracy": round(earned[1], 2),
            }
        )
        print(rows[-1], flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--encoder", default="static")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("peers.csv"))
    args = parser.parse_args()
    torch.set_num_threads(1)
    os.environ.setdefault("API_KEYS", "none")  # the peer asks for it when it is imported
    from llmrouter.models.knnrouter import KNNRouter, KNNRouterTrainer
    from llmrouter.models.knnrouter import router as knn_module
    from llmrouter.models.mlprouter import MLPRouter, MLPTrainer
    from llmrouter.models.mlprouter import router as mlp_module

    texts, scores, _, _, llms = load("train")
    keep = sorted({t: i for i, t in enumerate(texts)}.values())  # the peer knows a query by its text
    texts, scores = [texts[i] for i in keep], scores[keep]
    order = np.random.default_rng(0).permutation(len(texts))
    train, test = order[: len(order) // 2], order[len(order) // 2 :]
    X = np.asarray(make_encoder(args.encoder).fit_transform(texts), np.float32)
    known = dict(zip(texts, X))
    data = ([texts[i] for i in train], scores[train], [texts[i] for i in test], scores[test], llms, known)
    given, rows = Given(known, data[0], data[2]), []
    with mock.patch.object(routers, "make_encoder", lambda name, cache=None: given):
        rows += compare(
            "kNN",
            lambda: routers_base.make_router("knn", ks=(100,)),
            (KNNRouter, KNNRouterTrainer, knn_module, "pkl"),
            *data,
            {"n_neighbors": 100, "metric": "cosine"},
            args.repeats,
            "100 neighbours, cosine",
        )
        for setting, ours, theirs in (
            ("each package's own settings", {}, {"hidden_layer_sizes": [128, 64]}),
            ("one layer of 64, 30 epochs", {"width": 64, "epochs": 30}, {"hidden_layer_sizes": [64], "epochs": 30}),
        ):
            rows += compare(
                "MLP",
                lambda o=ours: routers_base.make_router("mlp", **o),
                (MLPRouter, MLPTrainer, mlp_module, "pt"),
                *data,
                theirs,
                max(1, args.repeats // 2),
                setting,
            )
    pd.DataFrame(rows).round(4).to_csv(args.out, index=False)


if __name__ == "__main__":
    main()
