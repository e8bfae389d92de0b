"The container file and the Slurm script: what they name is there, and what they call takes these options."

import json
import os
import re
import stat
import subprocess

import pytest
from typer.main import get_command

from llm_routing.cli.preflight import GPU_INSTALL
from llm_routing.cli.runner import app
from llm_routing.study.profiles import load_profile
from llm_routing.study.tables import project_root

ROOT = project_root()
EXAMPLES = {p.name: p.read_text(encoding="utf-8") for p in sorted((ROOT / "examples").iterdir()) if p.is_file()}


def readme() -> str:
    "The text of the index, which becomes the README."
    cells = json.loads((ROOT / "nbs" / "index.ipynb").read_text(encoding="utf-8"))["cells"]
    return "\n\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "markdown")


TEXTS = EXAMPLES | {"README": readme()}


def calls(text: str) -> list[list[str]]:
    "The words of each call of `llm-routing COMMAND ...`; continued lines are one, and a container's entry point is it."
    text = re.sub(r"\\\n#?\s*", " ", text)
    return [
        line.split("#")[0].split() for line in re.findall(r"llm-routing ((?:run|doctor|status|cite)\b[^`\n]*)", text)
    ]


@pytest.mark.parametrize("name", list(TEXTS))
def test_every_file_that_is_named_is_there(name):
    named = re.findall(r"(?<![\w/.])((?:examples|profiles|nbs|data)/[\w./-]+\w|constraints[\w-]*\.txt)", TEXTS[name])
    named = [n for n in named if not n.endswith(("/NAME", "/X"))]
    missing = [n for n in named if not (ROOT / n).exists() and "<" not in n]
    assert missing == []


@pytest.mark.parametrize("name", list(TEXTS))
def test_every_option_is_real(name):
    commands = get_command(app).commands
    for command, *words in calls(TEXTS[name]):
        known = {o for p in commands[command].params for o in p.opts}
        used = {w.partition("=")[0] for w in words if w.startswith("--")}
        assert used <= known, (command, used - known)


def test_the_examples_call_something():
    assert all(calls(TEXTS[name]) for name in ("Containerfile", "slurm.sh", "README"))


def test_one_command_installs_a_gpu_box_wherever_it_stands():
    for name in ("Containerfile", "README"):
        said = re.findall(r"pip install (?:--no-cache-dir )?(-e .*gpu.*)", TEXTS[name])
        assert said and {f"pip install {s}" for s in said} == {GPU_INSTALL}, name
    assert "gpu_requirements" in (ROOT / "settings.ini").read_text(encoding="utf-8")


@pytest.fixture
def slurm(tmp_path):
    "The script under a stand-in for srun that prints what it is given."
    (tmp_path / "srun").write_text('#!/bin/sh\nprintf "%s\\n" "$*"\n')
    (tmp_path / "srun").chmod(stat.S_IRWXU)

    def run(**variables):
        env = {"PATH": f"{tmp_path}:{os.environ['PATH']}", **variables}
        line = ["bash", ROOT / "examples" / "slurm.sh", "paper"]
        return subprocess.run(line, env=env, capture_output=True, text=True, cwd=ROOT)

    return run


def test_the_slurm_script_gives_each_job_its_llm(slurm):
    llms = re.search(r'LLMS="([^"]+)"', EXAMPLES["slurm.sh"])[1]
    assert set(llms.split()) <= {m.name for m in load_profile("paper").generation.pool}
    done = slurm(STORE="/shared/r", LLMS=llms, SLURM_ARRAY_TASK_ID="1")
    assert done.stdout == f"python examples/sample_one.py paper {llms.split()[1]} /shared/r\n", done.stderr


def test_the_slurm_script_runs_the_rest_of_the_study(slurm):
    done = slurm(STORE="/shared/r")
    assert done.stdout == "llm-routing run --profile paper --set generation.responses=/shared/r\n", done.stderr
    change = done.stdout.split()[-1]
    assert load_profile("paper", [change]).generation.responses == "/shared/r"


def test_the_slurm_script_says_what_is_not_set(slurm):
    assert "set STORE to a folder" in slurm().stderr and "set LLMS" in slurm(STORE="r", SLURM_ARRAY_TASK_ID="0").stderr
