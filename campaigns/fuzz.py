"""Feeds hostile and odd input to everything that reads input, for as long as it is given.

    python campaigns/fuzz.py [--minutes 30] [--only TARGET] [--seed 0] [--out campaigns/fuzz.csv] [--atheris]

Targets: the profile reader, the importers, the readers of logs, the extractors, the response store, the tables, the
report, the notebook reader. Each may refuse its input with the study's own one-message error, or take it and keep its
promises; anything else is a finding: it is printed with the input that shows it, made as small as hypothesis can.
Minutes are this process's own processor time, which a busy machine does not shorten, shared evenly by the targets.
--atheris lets coverage guide the bytes (pip install atheris; Linux). Exits 1 where there was a finding.
"""

import argparse
import csv
import functools
import io
import json
import math
import random
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from llm_routing.outcomes.numbers import extract_number
from llm_routing.outcomes.own_words import own_part
from llm_routing.outcomes.options import extract_option
from llm_routing.outcomes.votes import majority_vote
from llm_routing.outcomes.answers import published_number, published_option, read_answers
from llm_routing.generation.prompts import question_text
from llm_routing.generation.sampling import valid_text
from llm_routing.findings.report import el, sortable
from llm_routing.cli.stages import imported_modules, notebook_code
from llm_routing.generation.store import Store, request_key, section_name
from llm_routing.study.tables import StudyError, checksum, read_table, write_table
from llm_routing.study.profiles import load_profile, parse_profile, set_key
from llm_routing.sources.eval_logs import read_logs
from llm_routing.sources.importing import import_report
from llm_routing.sources.own_table import load_table

ODD = [
    "",
    "\x00",
    "\x1b[31m",
    "\u202e",
    "\u200f",
    "\ufeff",
    "\ud83d",
    "\udcff",
    "=1+1",
    "+cmd|' /C calc'!A0",
    "@SUM(A1)",
    "-2+3",
    "<script>alert(1)</script>",
    "</td><img src=x onerror=alert(1)>",
    "../../etc/passwd",
    "..\\..\\x",
    "/etc/passwd",
    "a/b",
    "$(id)",
    "`id`",
    "![x](javascript:alert(1))",
    "| a | b |",
    "\\boxed{",
    "#### 1,234",
    "The answer is",
    "(A)",
    "<END_ANSWER>",
    "1e999",
    "-0",
    "٣",
    "½",
    "²",
    "∞",
    "NaN",
    "null",
    "true",
    "\r\n",
    "\t",
    "9" * 400,
    "1/0",
    "0/0",
    "10^10^10",
    "12:30",
    "A" * 5000,
    "$" * 50,
    "{" * 200,
    "[" * 200,
    "((((",
    "\u2028",
    "é" * 3,
    "🂡",
    "%s",
    "{query}",
    "{0}",
]
text = st.one_of(
    st.text(alphabet=st.characters(codec=None, exclude_categories=()), max_size=60),
    st.sampled_from(ODD),
    st.lists(
        st.sampled_from(
            [
                *ODD,
                " ",
                "\n",
                "answer",
                "is",
                "42",
                "1,000",
                "3.5",
                "=",
                "**",
                "\\frac{1}{2}",
                "option",
                "B",
                "not",
                "so",
            ]
        ),
        max_size=12,
    ).map(" ".join),
    st.text(max_size=40).map(lambda s: s * 50),
)
number = st.one_of(st.integers(), st.floats(), st.booleans(), st.none())
value = st.recursive(
    st.one_of(text, number),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=12), inner, max_size=4)),
    max_leaves=12,
)
KEYS = [
    "name",
    "description",
    "source",
    "generation",
    "routers",
    "policies",
    "analysis",
    "seed",
    "kind",
    "datasets",
    "path",
    "pool",
    "model",
    "prompt",
    "names",
    "params",
    "engine_args",
    "base_url",
    "store",
    "responses",
    "resamples",
    "temperature",
    "trust_remote_code",
    "hf_token",
]


TARGETS: dict[str, tuple[Callable, tuple]] = {}  # name -> test, and the strategies of its inputs


def target(*inputs: st.SearchStrategy) -> Callable:
    "Register a target with its inputs."

    def add(f: Callable) -> Callable:
        TARGETS[f.__name__] = f, inputs
        return f

    return add


class Shape(HTMLParser):
    "The tags of a page."

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attrs) -> None:
        self.tags.append(tag)


def refuses(f: Callable, *args):
    "What a reader gives, or None where it refuses in the study's own words."
    try:
        return f(*args)
    except StudyError as e:
        assert str(e) and len(str(e)) < 20_000, "the message is empty or drowns in the input"
        return None


@target(
    st.dictionaries(st.one_of(st.sampled_from(KEYS), st.text(max_size=8)), value, max_size=6),
    st.lists(st.tuples(st.lists(st.sampled_from(KEYS), min_size=1, max_size=3).map(".".join), text), max_size=4),
)
def profiles(settings_: dict, changes) -> None:
    "Profiles as values, and as assignments on top of a good one."
    refuses(parse_profile, settings_)
    refuses(load_profile, "mini", [f"{key}={v}" for key, v in changes])
    good = load_profile("mini").model_dump(mode="json")
    for key, v in changes:
        refuses(set_key, good, f"{key}={v}")
    made = refuses(parse_profile, good | {k: v for k, v in settings_.items() if k in good})
    if made:
        assert (
            "/" not in made.name
            and not made.name.startswith(".")
            and not any("/" in m.name for m in made.generation.pool)
        )


@target(text, st.binary(max_size=300))
def profile_files(words: str, raw: bytes) -> None:
    "Profiles as files of any bytes, and names of profiles."
    refuses(load_profile, words)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "x.toml"
        for content in (raw, words.encode(errors="surrogatepass"), b'name = "x"\n' + raw):
            file.write_bytes(content)
            refuses(load_profile, str(file))


@target(
    st.lists(st.lists(text, min_size=1, max_size=7), max_size=8),
    st.binary(max_size=400),
    st.booleans(),
    st.sampled_from(["csv", "jsonl", "parquet", "pkl", "txt"]),
)
def importers(rows: list, raw: bytes, own: bool, kind: str) -> None:
    "Outcome tables of any bytes, of odd cells, and of odd cells in good columns."
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / f"x.{kind}"
        file.write_bytes(raw)
        refuses(load_table, file)
        out = io.StringIO()
        head = (
            ["query_id", "text", "split", "llm", "score", "latency_s", "cost"]
            if own
            else ["sample_id", "prompt", "eval_name", "m", "m|total_cost", "x"]
        )
        csv.writer(out).writerows([head, *rows])
        (Path(folder) / "y.csv").write_bytes(out.getvalue().encode(errors="surrogatepass"))
        refuses(import_report, Path(folder) / "y.csv")
        lines = [
            json.dumps(dict(zip(["task_name", "query", "model_name", "performance", "response_time", "cost"], r)))
            for r in rows
        ]
        (Path(folder) / "z.jsonl").write_text("\n".join(lines), encoding="utf-8")
        refuses(import_report, Path(folder) / "z.jsonl")


OWN = {"query_id": "q", "llm": "m", "text": "It is 4.", "sample": 0, "prompt_tokens": 3, "latency_s": 0.5}
ASKED = {"query_id": "q", "text": "2 + 2?", "gold": 4, "choices": ["3", "4"], "dataset": "d", "split": "test"}
HARNESS = {"doc_id": 0, "doc": {"question": "q", "choices": ["a"]}, "target": "1", "resps": [["a"]], "m": 1}
HARNESS |= {"arguments": {"gen_args_0": {"arg_0": "p"}}, "metrics": ["m"]}
BENCH = {"origin_query": "q", "prompt": "p", "ground_truth": "1", "score": 1, "raw_output": "a", "index": 0}
BENCH |= {"prompt_tokens": 1, "completion_tokens": 1, "cost": 0.1}


@target(
    st.lists(st.tuples(st.sampled_from([*OWN, *ASKED, *HARNESS, *BENCH]), value), max_size=3), st.binary(max_size=99)
)
def logs(odd: list, raw: bytes) -> None:
    "Logs of responses in each form, with odd values in some fields, or of any bytes."
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = {"own.jsonl": OWN, "asked.jsonl": ASKED, "h/m/samples_t_2024-01-01T00-00-00.0.jsonl": HARNESS}
        files |= {"b/d/test/m/1.json": BENCH}
        for file, good in files.items():
            row = good | {k: v for k, v in odd if k in good}
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            (folder / file).write_text(json.dumps({"records": [row]} if file.endswith(".json") else row))
        for place in ("own.jsonl", "h", "b"):
            read = refuses(read_logs, folder / place, folder / "asked.jsonl" if place == "own.jsonl" else "")
            assert read is None or len(read[0])
        (folder / "own.jsonl").write_bytes(raw)
        refuses(read_logs, folder / "own.jsonl", folder / "asked.jsonl")


@target(text, text, text, st.sampled_from(["train", "validation", "test"]), st.floats(0, 1))
def good_tables(query: str, llm: str, dataset: str, split: str, score: float) -> None:
    "A complete table of odd texts and names is taken whole, or refused."
    rows = [
        {"query_id": f"{query}{i}", "text": f"{query} {i}", "split": s, "llm": m, "score": score, "dataset": dataset}
        for i, s in enumerate(["train", "train", "test", split])
        for m in (llm, f"{llm}2")
    ]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "x.csv"
        out = io.StringIO()
        table = csv.DictWriter(out, list(rows[0]))
        table.writeheader()
        table.writerows(rows)
        file.write_bytes(out.getvalue().encode(errors="surrogatepass"))
        taken = refuses(load_table, file)
        if taken:
            assert len(taken.table) == len(rows) and set(taken.table.llm) == {m.strip() for m in (llm, f"{llm}2")}


@target(text, st.lists(text, max_size=6))
def extractors(words: str, choices: list) -> None:
    "Any text is read without an error, the same way twice, and quickly."
    began = time.process_time()
    own_part(words)
    for f in (extract_number, published_number, published_option):
        assert repr(f(words)) == repr(f(words))
    found = extract_option(words, choices)
    assert found.answer is None or found.answer in "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
    sure = extract_number(words).confidence
    assert math.isnan(sure) or 0 <= sure <= 1  # NaN: its rule decided no recorded response
    question_text(words, choices)
    assert time.process_time() - began < 5, "too slow"


@target(st.lists(text, min_size=1, max_size=5), st.sampled_from(["default", "as_published"]))
def votes(texts: list, rules: str) -> None:
    "Responses of any text are read and voted on."
    queries = pd.DataFrame(
        {"query_id": ["q"], "dataset": "d", "split": "test", "subject": "", "text": "t", "choices": [[]], "gold": "4"}
    )
    responses = pd.DataFrame(
        {
            "query_id": "q",
            "llm": "m",
            "sample": range(len(texts)),
            "text": pd.Series(texts, dtype=object),
            "finish_reason": "stop",
            "prompt_tokens": 1,
            "completion_tokens": 1,
            "latency_s": 1.0,
        }
    )
    answers = read_answers(responses, queries, rules)
    if rules == "default":
        assert len(majority_vote(answers)) == 1


@target(st.lists(text, min_size=1, max_size=5), text, text)
def store(texts: list, llm: str, revision: str) -> None:
    "Responses of any text come back from the store as they went in, or are refused."
    with tempfile.TemporaryDirectory() as folder:
        kept = Store(folder)
        section, texts = section_name(llm, revision), [valid_text(t) for t in texts]
        assert (
            "/" not in section
            and section not in (".", "..")
            and (Path(folder) / section).resolve().parent == Path(folder).resolve()
        )
        keys = [request_key(text=t) for t in texts]
        rows = pd.DataFrame({"request": keys, "sample": range(len(texts)), "text": pd.Series(texts, dtype=object)})
        if refuses(kept.append, section, rows, {"llm": llm}) is None:
            return
        back = kept.read(section).sort_values("sample").text.tolist()
        assert back == texts, "other texts came back"


@target(st.lists(text, min_size=1, max_size=5), st.binary(max_size=200), st.integers(0, 2**31))
def tables(texts: list, raw: bytes, where: int) -> None:
    "A table comes back as written, and damaged bytes are refused or change nothing."
    frame = pd.DataFrame(
        {
            "query_id": [f"q{i}" for i in range(len(texts))],
            "dataset": "d",
            "split": "test",
            "subject": "",
            "text": pd.Series(texts, dtype=object),
            "choices": [texts] * len(texts),
            "gold": "",
        }
    )
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "queries.parquet"
        if refuses(write_table, "queries", frame, file) is None:
            return
        back = read_table("queries", file)
        assert back.text.tolist() == texts
        good = bytearray(file.read_bytes())
        good[where % len(good)] ^= 1 << where % 8
        file.write_bytes(good)
        again = refuses(read_table, "queries", file)
        if again is not None:
            assert checksum(again) == checksum(back), "other rows were read without a word"
        file.write_bytes(raw)
        refuses(read_table, "queries", file)


@target(text, st.lists(text, min_size=1, max_size=4))
def report(caption: str, cells: list) -> None:
    "No text of the data becomes markup of the page."
    shape, plain = Shape(), Shape()
    shape.feed(sortable(pd.DataFrame({"a": pd.Series(cells, dtype=object)}), caption) + el("p", caption, title=caption))
    plain.feed(sortable(pd.DataFrame({"a": ["x"] * len(cells)}), "x") + el("p", "x", title="x"))
    assert shape.tags == plain.tags


@target(st.binary(max_size=200), text, value)
def notebooks(raw: bytes, code: str, cells) -> None:
    "Files that are no notebooks, and cells that are no Python."
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "x.ipynb"
        for content in (
            raw,
            json.dumps({"cells": cells}).encode(),
            json.dumps({"cells": [{"cell_type": "code", "source": [code]}]}).encode(),
        ):
            file.write_bytes(content)
            refuses(lambda f: imported_modules(notebook_code(f)), file)


def look(name: str, tried: Counter | None = None, **how) -> Callable[[], None]:
    "A target with its inputs, as a test of hypothesis under these settings, that counts the inputs it tries."
    test, inputs = TARGETS[name]

    @functools.wraps(test)
    def counted(*args, **kwargs) -> None:
        if tried is not None:
            tried[name] += 1
        test(*args, **kwargs)

    return settings(deadline=None, database=None, print_blob=False, suppress_health_check=list(HealthCheck), **how)(
        given(*inputs)(counted)
    )


def rounds(name: str, seconds: float, number: int, tried: Counter) -> str:
    "Try a target with new examples for so many processor seconds; the first finding's traceback, or nothing."
    test, began = look(name, tried, max_examples=200, phases=[Phase.generate, Phase.shrink]), time.process_time()
    while time.process_time() - began < seconds:
        number += 1
        try:
            seed(number)(test)()
        except Exception as e:
            return "".join(traceback.format_exception(e, limit=-4))  # whatever it is, it is a finding
    return ""


def guided(seconds: float) -> None:
    "atheris: bytes guided by coverage, into the readers of text. Ends by itself; a finding ends it with a traceback."
    import atheris

    def one(data: bytes) -> None:
        words = atheris.FuzzedDataProvider(data).ConsumeUnicode(len(data))
        for f in (extract_number, published_number, own_part):
            f(words)
        extract_option(words, words.split("|")[:4])
        refuses(load_profile, "mini", [words])

    for f in (extract_number, extract_option, own_part):
        atheris.instrument_func(f)
    atheris.Setup([sys.argv[0], f"-max_total_time={int(seconds)}", "-max_len=400"], one)
    atheris.Fuzz()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--only", choices=list(TARGETS), help="one target")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="a CSV file for the table")
    parser.add_argument("--atheris", action="store_true")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    if args.atheris:
        return guided(args.minutes * 60)
    names = [args.only] if args.only else list(TARGETS)
    random.Random(args.seed).shuffle(names)
    turns = max(1, round(args.minutes * 60 / len(names) / 30))
    rows = {
        name: {"target": name, "seed": args.seed, "minutes": 0.0, "wall_minutes": 0.0, "inputs": 0, "findings": 0}
        for name in names
    }
    tried: Counter = Counter()
    for turn in range(turns):
        for name in (n for n in names if not rows[n]["findings"]):
            wall, own = time.monotonic(), time.process_time()
            found = rounds(name, args.minutes * 60 / len(names) / turns, args.seed * 10**6 + turn * 10**4, tried)
            row = rows[name]
            row |= {
                "minutes": row["minutes"] + (time.process_time() - own) / 60,
                "wall_minutes": row["wall_minutes"] + (time.monotonic() - wall) / 60,
                "inputs": tried[name],
                "findings": int(bool(found)),
            }
            print(
                f"== {name}\n{found}"
                if found
                else f"turn {turn + 1} of {turns}, {name}: nothing found, {tried[name]} inputs",
                flush=True,
            )
            if args.out:
                pd.DataFrame(rows.values()).round(2).to_csv(args.out, index=False)
    table = pd.DataFrame(rows.values())
    print(
        f"{len(table)} targets, {table.inputs.sum()} inputs in {table.minutes.sum():.1f} processor minutes "
        f"({table.wall_minutes.sum():.1f} by the clock), "
        f"{table.findings.sum()} with a finding"
    )
    sys.exit(bool(table.findings.any()))


if __name__ == "__main__":
    main()
