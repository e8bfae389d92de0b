"""Time of the extractors against the original's regular expressions, on the same text in one run.

    python benchmarks/bench_extraction.py [--responses 1000000] [--peers] [--write]

Text: GSM8K's example solutions and RouteLLM's responses where they are at hand (LLM_ROUTING_DATA, or the download
cache), the responses of `mini` where it has run, and the shipped hard cases. Time is CPU time, which other jobs on
the machine disturb little: the median of several interleaved passes, and ratio = original / here (above 1: here is
faster) with the smallest and the largest of the passes. `--responses N` also extracts and votes on N responses, no
two of them equal, and gives time and peak memory. `--write` keeps the table in `benchmarks/extraction.csv`. `--peers`
adds math-verify where it is installed.

What the ratios compare is not equal work: the original's MMLU expression looks for one of four literal strings, and
the search for "(" runs in C; a call of a Python function that returns a rule and a confidence already takes longer
than that on a short response.
"""

import argparse
import re
import resource
import statistics
import time
from pathlib import Path

from llm_routing.sources import files as sources_files
import numpy as np
import pandas as pd

from llm_routing.outcomes.numbers import extract_number
from llm_routing.outcomes.numerals import spelled
from llm_routing.outcomes.options import extract_option
from llm_routing.outcomes.checked_on_labels import hand_written, labelled_text, shipped
from llm_routing.outcomes.votes import majority_vote
from llm_routing.outcomes.answers import read_answers
from llm_routing.study.tables import project_root


def original_number(text: str):
    "As the original has it: the pattern is a literal in the call."
    found = re.findall(r"(\d+)[^\d]*$", text)
    return float(found[-1].strip()) if found else "INVALID"


def original_option(text: str):
    found = re.findall(r"\((A|B|C|D)\)", text)
    return found[-1].strip() if found else "INVALID"


def seconds(f, items) -> float:
    start = time.process_time()
    for item in items:
        f(*item)
    return time.process_time() - start


def compare(part: str, items: list[tuple], original, here, passes: int = 9) -> dict:
    """Interleaved passes, so that a slow moment of the machine hits both. `items`: the arguments of each call, its
    text first."""
    a, b = zip(*((seconds(original, items), seconds(here, items)) for _ in range(passes)))
    ratios, per = sorted(x / y for x, y in zip(a, b)), 1e6 / len(items)
    return {
        "part": part,
        "texts": len(items),
        "characters": round(statistics.mean(len(i[0]) for i in items)),
        "original_us": statistics.median(a) * per,
        "here_us": statistics.median(b) * per,
        "ratio": statistics.median(ratios),
        "ratio_low": ratios[0],
        "ratio_high": ratios[-1],
    }


def number_rows() -> list[dict]:
    "Numbers, by source of text."
    parts = {"hard cases, numbers": hand_written("hard_cases").query("kind == 'number'").text.tolist()}
    if sources_files.available(
        "gsm8k/example_model_solutions.jsonl", "gsm8k/test.jsonl", "routellm/gsm8k_responses.csv"
    ):
        rows = labelled_text()
        parts |= {f"{s} {m}": part.text.tolist() for (s, m), part in rows.groupby(["source", "llm"])} | {
            "all labelled responses": rows.text.tolist()
        }
    return [compare(name, [(t,) for t in texts], original_number, extract_number) for name, texts in parts.items()]


def option_rows() -> list[dict]:
    """Options: hard cases, and a sample of the responses of `mini` to its multiple-choice queries; and the whole
    table of those."""

    def original(text, options):
        return original_option(text)

    hard = hand_written("hard_cases").query("kind == 'option'")
    rows = [compare("hard cases, options", list(zip(hard.text, hard.options)), original, extract_option)]
    run = project_root() / "runs" / "mini"
    if not (run / "responses.parquet").is_file():
        return rows
    queries = pd.read_parquet(run / "queries.parquet").query("dataset == 'mini-mcq'")
    responses = pd.read_parquet(run / "responses.parquet").query("query_id in @queries.query_id")
    options = dict(zip(queries.query_id, queries.choices.map(tuple)))
    some = responses.sample(5000, random_state=0)
    rows.append(compare("mini-mcq", list(zip(some.text, some.query_id.map(options))), original, extract_option))
    texts = responses.text.tolist()
    whole = compare(
        "mini-mcq, whole table",
        [(texts,)],
        lambda ts: [original_option(t) for t in ts],
        lambda _: read_answers(responses, queries),
        passes=3,
    )
    return [
        *rows,
        whole
        | {
            "texts": len(texts),
            "characters": round(statistics.mean(map(len, texts))),
            **{c: whole[c] / len(texts) for c in ("original_us", "here_us")},
        },
    ]


def growth_rows() -> list[dict]:
    "Time for texts of growing length: it should double with the length."
    rows = []
    for name, unit in (
        ("prose", "She sells 3 of 12 eggs. "),
        ("digits", "9"),
        ("marks", "the answer is "),
        ("groups", "1,234."),
        ("hashes", "#### "),
        ("options", "(A) or (B). "),
    ):

        def both(text):
            extract_number(text)
            extract_option(text, ["red", "green"])

        times = [
            min(seconds(both, [(unit * (n // len(unit)),)]) for _ in range(3)) for n in (250_000, 500_000, 1_000_000)
        ]
        rows.append(
            {
                "part": f"1 MB of {name}, both extractors",
                "texts": 1,
                "characters": 10**6,
                "here_us": times[-1] * 1e6,
                "growth_250kB_to_1MB": times[-1] / times[0],
            }
        )
    return rows


def volume(n: int, pool: list[str]) -> dict:
    "n responses in one table, of which no two are equal: 10 samples by 10 LLMs."
    rng, n_queries = np.random.default_rng(0), n // 100
    ids = np.array([f"q{i:06d}" for i in range(n_queries)])
    responses = pd.DataFrame(
        {
            "query_id": np.repeat(ids, 100),
            "llm": np.tile(np.repeat([f"llm{i}" for i in range(10)], 10), n_queries),
            "sample": np.tile(np.arange(10), n_queries * 10),
            "finish_reason": "stop",
            "prompt_tokens": 100,
            "completion_tokens": 100,
            "latency_s": 1.0,
        }
    )
    responses["text"] = [f"{i}. {pool[k]}" for i, k in enumerate(rng.integers(len(pool), size=len(responses)))]
    queries = pd.DataFrame({"query_id": ids, "gold": "18", "choices": [[]] * n_queries})
    before, cpu = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    answers = read_answers(responses, queries)
    read = time.process_time() - cpu
    majority_vote(answers)
    whole = time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "part": f"{n:,} responses: read, and voted on",
        "texts": n,
        "characters": round(responses.text.str.len().mean()),
        "here_us": 1e6 * read / n,
        "cpu_seconds": whole,
        "peak_gib": peak / 2**20,
        "peak_before_gib": before / 2**20,
    }


def peers(sample: int = 400) -> None:
    "math-verify on the hard cases and on labelled text."
    from fractions import Fraction
    from math_verify import parse, verify

    cases = hand_written("hard_cases").query("kind == 'number' and answer.notna()")

    def right(text, gold):
        try:
            return bool(verify(parse(str(gold)), parse(text)))
        except Exception:
            return False  # its own errors count as wrong

    rows = [
        (
            "hard cases with an answer, right",
            len(cases),
            sum(right(t, a) for t, a in zip(cases.text, cases.answer)),
            sum(spelled(extract_number(t).answer) == a for t, a in zip(cases.text, cases.answer)),
        )
    ]
    if sources_files.available(
        "gsm8k/example_model_solutions.jsonl", "gsm8k/test.jsonl", "routellm/gsm8k_responses.csv"
    ):
        labelled, wrong_flags = labelled_text(), set(zip(shipped("disagreements").llm, shipped("disagreements").row))
        labelled["label"] ^= np.array(
            [key in wrong_flags for key in zip(labelled.llm, labelled.row)]
        )  # the flags that reading found wrong
        for source, part in labelled.groupby("source"):
            part = part.sample(sample, random_state=0)
            rows.append(
                (
                    f"{source}, agrees with the label (corrected by reading), sample",
                    len(part),
                    sum(right(t, g) == y for t, g, y in zip(part.text, part.gold, part.label)),
                    sum(
                        (extract_number(t).answer == Fraction(g)) == y
                        for t, g, y in zip(part.text, part.gold, part.label)
                    ),
                )
            )
            some = part.text.tolist()[:100]
            some = [(t,) for t in some]
            print(
                f"{source}: math-verify {seconds(parse, some) * 1e4:.0f} us a text, "
                f"here {seconds(extract_number, some) * 1e4:.0f} us"
            )
    print(pd.DataFrame(rows, columns=["text", "n", "math_verify", "here"]).to_csv(index=False))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--responses", type=int, default=0, help="also read and vote on this many responses")
    parser.add_argument("--peers", action="store_true", help="also compare with math-verify")
    parser.add_argument("--write", action="store_true", help="keep the table in benchmarks/extraction.csv")
    args = parser.parse_args()
    rows = [*number_rows(), *option_rows(), *growth_rows()]
    if args.responses:
        rows.append(volume(args.responses, labelled_text().text.tolist()))
    table = pd.DataFrame(rows).round(2)
    print(table.to_string(index=False))
    if args.write:
        table.to_csv(Path(__file__).with_name("extraction.csv"), index=False)
    if args.peers:
        peers()
