"""Time of the extractors against the original's regular expressions, on the same text in one run.

    python benchmarks/bench_extraction.py [--responses 1000000] [--peers]

Text: GSM8K's example solutions and RouteLLM's responses where they are at hand (LLM_ROUTING_DATA, or the download cache),
else the shipped hard cases. Prints the median of several interleaved passes, and ratio = original / here (above 1: here is faster).
`--responses N` extracts and votes on N responses and prints time and peak memory. `--peers` adds math-verify where it is installed.
"""
import argparse
import re
import resource
import statistics
import time

import numpy as np
import pandas as pd

from llm_routing import sources
from llm_routing.extraction import (
    build_outcomes, extract_number, extract_option, hard_cases, labelled_text, majority_vote, read_answers, shipped, spelled)


def original_number(text: str):
    "As the original has it: the pattern is a literal in the call."
    found = re.findall(r"(\d+)[^\d]*$", text)
    return float(found[-1].strip()) if found else "INVALID"


def original_option(text: str):
    found = re.findall(r"\((A|B|C|D)\)", text)
    return found[-1].strip() if found else "INVALID"


def seconds(f, items) -> float:
    start = time.perf_counter()
    for item in items: f(item)
    return time.perf_counter() - start


def compare(name: str, texts: list, original, here, passes: int = 7) -> None:
    "Interleaved passes, so that a slow moment of the machine hits both."
    a, b = zip(*((seconds(original, texts), seconds(here, texts)) for _ in range(passes)))
    ratios = sorted(x / y for x, y in zip(a, b))
    per = 1e6 / len(texts)
    print(f"{name:28} {len(texts):6} texts of {statistics.mean(map(len, texts)):5.0f} characters: original {statistics.median(a) * per:7.1f} us, "
          f"here {statistics.median(b) * per:7.1f} us, ratio {statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})")


def texts() -> dict[str, list[str]]:
    if sources.available("gsm8k/example_model_solutions.jsonl", "gsm8k/test.jsonl", "routellm/gsm8k_responses.csv"):
        rows = labelled_text()
        parts = {f"{s} {m}": part.text.tolist() for (s, m), part in rows.groupby(["source", "llm"])}
        return parts | {"all of them": rows.text.tolist()}
    return {"hard cases": hard_cases().query("kind == 'number'").text.tolist()}


def growth() -> None:
    "Time for texts of growing length: it should double with the length."
    for name, unit in (("prose", "She sells 3 of 12 eggs. "), ("digits", "9"), ("marks", "the answer is "), ("groups", "1,234."), ("hashes", "#### ")):
        times = [min(seconds(extract_number, [unit * (n // len(unit))]) for _ in range(3)) for n in (125_000, 250_000, 500_000, 1_000_000)]
        print(f"1 MB of {name:8} {times[-1] * 1e3:8.2f} ms; growth from 125 kB in doublings " + ", ".join(f"{b / a:.2f}" for a, b in zip(times, times[1:])))


def volume(n: int, pool: list[str]) -> None:
    "n responses in one table, of which no two are equal: 10 samples by 10 LLMs."
    rng, n_queries = np.random.default_rng(0), n // 100
    ids = np.array([f"q{i:06d}" for i in range(n_queries)])
    responses = pd.DataFrame({"query_id": np.repeat(ids, 100), "llm": np.tile(np.repeat([f"llm{i}" for i in range(10)], 10), n_queries),
                              "sample": np.tile(np.arange(10), n_queries * 10), "finish_reason": "stop", "prompt_tokens": 100,
                              "completion_tokens": 100, "latency_s": 1.})
    responses["text"] = [f"{i}. {pool[k]}" for i, k in enumerate(rng.integers(len(pool), size=len(responses)))]
    queries = pd.DataFrame({"query_id": ids, "gold": "18", "choices": [[]] * n_queries})
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
    answers = read_answers(responses, queries); read = time.perf_counter()
    majority_vote(answers); voted = time.perf_counter()
    build_outcomes(responses[:100_000], queries)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(f"{len(responses):,} responses: read {read - start:.1f} s, voted {voted - read:.1f} s; peak memory {peak / 2**20:.2f} GB, of which the "
          f"table of responses and the libraries {before / 2**20:.2f} GB")


def peers(sample: int = 400) -> None:
    "math-verify on the hard cases and on labelled text."
    from fractions import Fraction
    from math_verify import parse, verify
    cases = hard_cases().query("kind == 'number' and answer.notna()")
    def right(text, gold):
        try: return bool(verify(parse(str(gold)), parse(text)))
        except Exception: return False  # its own errors count as wrong
    rows = [("hard cases with an answer, right", len(cases), sum(right(t, a) for t, a in zip(cases.text, cases.answer)),
             sum(spelled(extract_number(t).answer) == a for t, a in zip(cases.text, cases.answer)))]
    if sources.available("gsm8k/example_model_solutions.jsonl", "gsm8k/test.jsonl", "routellm/gsm8k_responses.csv"):
        labelled, wrong_flags = labelled_text(), set(zip(shipped("disagreements").llm, shipped("disagreements").row))
        labelled["label"] ^= np.array([key in wrong_flags for key in zip(labelled.llm, labelled.row)])  # the flags that reading found wrong
        for source, part in labelled.groupby("source"):
            part = part.sample(sample, random_state=0)
            rows.append((f"{source}, agrees with the label (mended by reading), sample", len(part),
                         sum(right(t, g) == y for t, g, y in zip(part.text, part.gold, part.label)),
                         sum((extract_number(t).answer == Fraction(g)) == y for t, g, y in zip(part.text, part.gold, part.label))))
            some = part.text.tolist()[:100]
            print(f"{source}: math-verify {seconds(parse, some) * 1e4:.0f} us a text, here {seconds(extract_number, some) * 1e4:.0f} us")
    print(pd.DataFrame(rows, columns=["text", "n", "math_verify", "here"]).to_csv(index=False))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--responses", type=int, default=0, help="also read and vote on this many responses")
    parser.add_argument("--peers", action="store_true", help="also compare with math-verify")
    args = parser.parse_args()
    found = texts()
    for name, part in found.items(): compare(name, part, original_number, extract_number)
    options = hard_cases().query("kind == 'option'")
    compare("hard cases, options", options.text.tolist(), original_option, lambda t: extract_option(t, ["Paris", "London", "Rome", "Madrid"]))
    growth()
    if args.responses: volume(args.responses, list(found.values())[-1])
    if args.peers: peers()
