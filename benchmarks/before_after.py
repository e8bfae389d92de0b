"""Accuracy of each recorded LLM as an earlier commit's extractor reads it, and as the present one does.

    python benchmarks/before_after.py [--before 166b69c] [--llms NAME ...] [--write]

The earlier commit is one before the table of rules; its readers stand in `llm_routing/extraction.py`. The questions
are those of the study: all files state them alike, and all LLMs have answered them. `--write` keeps the two tables in
`data/extraction`: `before_after.csv`, an LLM a row, and `before_after_rows.csv`, each response that one of the two
reads right and the other does not; the reasons in it, found by reading, stay. Needs the repository's history, and the
public files (LLM_ROUTING_DATA).
"""

import argparse
import io
import os
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import pandas as pd

from llm_routing.outcomes.answers import read_answers
from llm_routing.sources.recorded import BENCHMARKS, agreed, read_benchmark
from llm_routing.study.profiles import Source
from llm_routing.study.tables import project_root

EARLIER = """
import sys
import pandas as pd
from llm_routing.extraction import extract_number, extract_option, spelled
rows = pd.read_parquet(sys.argv[1])
choices, seen = [tuple(c) for c in rows.choices], {}
for key in zip(rows.text, choices):
    if key not in seen:
        seen[key] = spelled((extract_option(*key) if key[1] else extract_number(key[0])).answer)
rows["before"] = [seen[key] for key in zip(rows.text, choices)]
rows[["before"]].to_parquet(sys.argv[2])
"""


def recorded_rows(llms: list[str]) -> pd.DataFrame:
    "All recorded responses to the study's questions, of all LLMs if none are named."
    parts = []
    for dataset in BENCHMARKS:
        source = Source(kind="recorded", datasets=[dataset], incomplete="leave_out")
        kept, _ = agreed(read_benchmark(dataset, source), source.incomplete)
        parts.append(kept.assign(dataset=dataset))
    rows = pd.concat(parts, ignore_index=True)
    return rows[rows.llm.isin(llms)].reset_index(drop=True) if llms else rows


def read_by_earlier(rows: pd.DataFrame, commit: str) -> list:
    "What the readers of a commit answer, in a process of its own."
    packed = subprocess.run(
        ["git", "archive", commit, "llm_routing"], cwd=project_root(), capture_output=True, check=True
    )
    with tempfile.TemporaryDirectory() as folder:
        tarfile.open(fileobj=io.BytesIO(packed.stdout)).extractall(folder, filter="data")
        given, made = Path(folder, "given.parquet"), Path(folder, "made.parquet")
        rows[["text", "choices"]].to_parquet(given)
        environment = os.environ | {"PYTHONPATH": folder}
        subprocess.run([sys.executable, "-c", EARLIER, given, made], cwd=folder, env=environment, check=True)
        return pd.read_parquet(made).before.tolist()


def both_read(rows: pd.DataFrame, commit: str) -> pd.DataFrame:
    "Each response with both answers, and whether each is right."
    present = read_answers(rows, rows.drop_duplicates("query_id"))
    out = rows.assign(answer=present.answer, rule=present.rule, gold=present.gold, after_right=present.correct)
    out["before"] = read_by_earlier(rows, commit)
    return out.assign(before_right=out.before == out.gold)


def accuracies(read: pd.DataFrame) -> pd.DataFrame:
    "An LLM a row: accuracy in percent by both, and how many responses are right by one alone."
    gained, lost = read.after_right & ~read.before_right, read.before_right & ~read.after_right
    by = read.assign(gained=gained, lost=lost).groupby(["dataset", "llm"])
    return pd.DataFrame(
        {
            "n": by.size(),
            "before": (100 * by.before_right.mean()).round(2),
            "after": (100 * by.after_right.mean()).round(2),
            "more_right": by.gained.sum(),
            "fewer": by.lost.sum(),
        }
    ).reset_index()


def apart(read: pd.DataFrame) -> pd.DataFrame:
    "Each response that is right by one of the two alone, with the end of its text."
    rows = read[read.after_right != read.before_right]
    end = rows.text.str.split().str.join(" ").str[-60:]
    columns = ["dataset", "llm", "query_id", "gold", "before", "answer", "rule"]
    return rows[columns].assign(end=end).rename(columns={"answer": "after"}).sort_values(columns[:3])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--before", default="166b69c", help="the earlier commit")
    parser.add_argument("--llms", nargs="*", default=[], help="these LLMs alone")
    parser.add_argument("--write", action="store_true", help="keep the tables in data/extraction")
    args = parser.parse_args()
    read = both_read(recorded_rows(args.llms), args.before)
    table = accuracies(read)
    print(table.to_string(index=False))
    if args.write:
        folder = project_root() / "data" / "extraction"
        table.to_csv(folder / "before_after.csv", index=False)
        rows, known = apart(read), folder / "before_after_rows.csv"
        if known.is_file():
            reasons = pd.read_csv(known)[["llm", "query_id", "why"]]
            rows = rows.merge(reasons, on=["llm", "query_id"], how="left")
        rows.to_csv(known, index=False)
