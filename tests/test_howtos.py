"The README's how-tos, with the code and the commands as they are printed there."

import json
import random
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from llm_routing.study.profiles import load_profile
from llm_routing.study.tables import project_root

ROOT = project_root()


def blocks(kind: str) -> list[str]:
    "The code blocks of a kind in the index, which becomes the README."
    cells = json.loads((ROOT / "nbs" / "index.ipynb").read_text(encoding="utf-8"))["cells"]
    text = "\n\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "markdown")
    return re.findall(rf"^```{kind}\n(.*?)^```", text, re.M | re.S)


def call(line: str, cwd: Path) -> str:
    "What a printed command says; it must succeed."
    words = line.partition("#")[0].replace("llm-routing", f"{sys.executable} -m llm_routing.cli.runner", 1).split()
    done = subprocess.run(words, cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    return done.stdout


@pytest.fixture
def outcomes(tmp_path) -> Path:
    "A file as somebody may have it: other names, True and False, no splits, a column too many."
    rng, rows = random.Random(0), []
    for i in range(150):
        kind = rng.randrange(2)
        text = (
            f"Add {i} and {rng.randrange(50)}" if kind else f"Which bird sings at {i} in the long night of the north?"
        )
        for llm, chance in (("ada", (0.8, 0.3)), ("bob", (0.3, 0.8)), ("cy", (0.5, 0.5))):
            right = rng.random() < chance[kind]
            rows.append({"id": f"q{i}", "prompt": text, "model": llm, "correct": right, "note": "x"})
    pd.DataFrame(rows).to_csv(tmp_path / "outcomes.csv", index=False)
    return tmp_path


@pytest.mark.slow
def test_own_outcomes_and_an_own_router_as_the_readme_says(outcomes):
    imports = next(b for b in blocks("sh") if "llm-routing import" in b).strip().splitlines()
    assert [line.split()[1] for line in imports] == ["import", "run"]
    here = [line.replace("--profile mine", f"--profile {outcomes}/mine.toml") for line in imports]
    call(here[0], outcomes)
    (outcomes / "my_routers.py").write_text(next(b for b in blocks("python") if "register_router" in b))
    names = load_profile(str(outcomes / "mine.toml")).routers.names
    changes = (
        f"--set routers.modules=['my_routers'] --set routers.names={[*names, 'shortest']} --run-dir {outcomes}/run"
    )
    said = call(f"{here[1]} {changes} --set analysis.resamples=200".replace("', '", "','"), outcomes)
    assert "report: " in said and "points [" in said
    results = pd.read_parquet(outcomes / "run" / "results.parquet")
    assert "shortest" in set(results.system) and "ada" in set(results.system)


def test_the_printed_llms_can_be_appended_to_a_profile(tmp_path):
    mini = (ROOT / "profiles" / "mini.toml").read_text(encoding="utf-8")
    (tmp_path / "mini.toml").write_text(mini + "\n" + next(b for b in blocks("toml") if "generation.pool" in b))
    pool = load_profile(str(tmp_path / "mini.toml")).generation.pool
    assert {"my-llm", "hosted-llm"} <= {m.name for m in pool} and len(pool) == 9


def test_every_printed_command_is_one_that_there_is():
    lines = [line for b in blocks("sh") for line in b.splitlines() if line.startswith("llm-routing")]
    commands = {line.split()[1] for line in lines}
    said = call("llm-routing --help", ROOT)
    assert len(commands) > 4 and all(re.search(rf"\b{c}\b", said) for c in commands)


def test_every_printed_profile_and_setting_is_valid():
    lines = [line.partition("#")[0] for b in blocks("sh") for line in b.splitlines() if "--profile" in line]
    for words in (line.split() for line in lines if "mine" not in line):
        changes = [words[i + 1] for i, w in enumerate(words) if w == "--set"]
        load_profile(words[words.index("--profile") + 1], changes)
