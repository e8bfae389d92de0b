"""How the notebooks are written, at two revisions: cells, their lengths and widths, and how much of them is exported.

    python benchmarks/notebooks.py BEFORE AFTER [--write]

A revision is anything that git knows, such as `cb4fefc` or `HEAD`. Of each notebook: code cells and text cells; the
median and the longest code cell in lines, with blank lines and nbdev's directives; the widest line of a code cell in
characters; code cells that are exported to the package and to the tests, and the share of the former in percent.
`--write` keeps the table in `benchmarks/notebooks.csv`.
"""

import argparse
import json
import re
import statistics
import subprocess
from pathlib import Path

import pandas as pd

ROOT = Path(__file__).resolve().parent.parent


def git(*command: str) -> str:
    "What git says."
    return subprocess.run(["git", *command], cwd=ROOT, check=True, capture_output=True, text=True).stdout


def has(cell: str, directive: str) -> bool:
    "Whether a code cell has a directive of nbdev's."
    return bool(re.search(rf"^#\|\s*{directive}\b", cell, re.M))


def measures(text: str) -> dict[str, float]:
    "How a notebook is written, from its file's text."
    cells = json.loads(text)["cells"]
    code = ["".join(c["source"]) for c in cells if c["cell_type"] == "code"]
    lengths = [len(c.splitlines()) for c in code]
    exported = sum(has(c, "export[is]?") for c in code)
    return {
        "code_cells": len(code),
        "text_cells": sum(c["cell_type"] == "markdown" for c in cells),
        "median_lines": statistics.median(lengths),
        "longest_lines": max(lengths),
        "widest": max(len(line) for c in code for line in c.splitlines()),
        "exported_cells": exported,
        "test_cells": sum(has(c, "test") for c in code),
        "exported_percent": round(100 * exported / len(code), 1),
    }


def notebooks(revision: str) -> pd.DataFrame:
    "A row for each notebook of a revision."
    files = [f for f in git("ls-tree", "--name-only", revision, "nbs/").splitlines() if f.endswith(".ipynb")]
    return pd.DataFrame([{"notebook": Path(f).stem} | measures(git("show", f"{revision}:{f}")) for f in files])


def main() -> None:
    about, _, _ = __doc__.partition("\n")
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("before", help="a git revision")
    parser.add_argument("after", help="a git revision")
    parser.add_argument("--write", action="store_true", help="keep the table in benchmarks/notebooks.csv")
    asked = parser.parse_args()
    parts = [
        notebooks(revision).assign(state=state)
        for state, revision in (("before", asked.before), ("after", asked.after))
    ]
    table = pd.concat(parts).set_index(["state", "notebook"])
    print(table.to_string())
    if asked.write:
        table.to_csv(ROOT / "benchmarks" / "notebooks.csv", lineterminator="\n")


if __name__ == "__main__":
    main()
