"The wheel in a fresh environment and an empty folder: no checkout anywhere near."

import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

from llm_routing.study.tables import TABLES, project_root

ROOT = project_root()


def call(command: list, cwd: Path) -> subprocess.CompletedProcess:
    "Run a command that does not see this checkout."
    env = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "LLM_ROUTING_HOME")}
    return subprocess.run([str(c) for c in command], cwd=cwd, capture_output=True, text=True, env=env)


def done(command: list, cwd: Path) -> str:
    "What a command prints; it must succeed."
    said = call(command, cwd)
    assert said.returncode == 0, (said.stdout + said.stderr)[-3000:]
    return said.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> tuple[Path, Path]:
    "The command of an environment that has the wheel, and an empty folder. Other packages are those at hand."
    folder = tmp_path_factory.mktemp("installed")
    done([sys.executable, "-m", "build", "--no-isolation", "--outdir", folder / "dist", ROOT], folder)
    wheel, sdist = next((folder / "dist").glob("*.whl")), next((folder / "dist").glob("*.tar.gz"))
    assert wheel.stat().st_size > 10e6 and sdist.stat().st_size > 10e6  # with notebooks, profiles and data
    venv.create(folder / "env", with_pip=True, symlinks=True)
    python = folder / "env" / "bin" / "python"
    done([python, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", wheel], folder)
    site = done([python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], folder).strip()
    (Path(site) / "packages_at_hand.pth").write_text(sysconfig.get_path("purelib") + "\n")
    (folder / "work").mkdir()
    return folder / "env" / "bin" / "llm-routing", folder / "work"


@pytest.mark.slow
def test_an_installed_copy_runs_the_study_in_any_folder_and_gives_the_same_bytes(installed, mini):
    command, work = installed
    assert "mini" in done([command, "profiles"], work)
    assert "mini: 8 stages ran" in done([command, "run", "--profile", "mini"], work)
    assert done([command, "status"], work).count("up to date") == 8
    here = work / "runs" / "mini"
    same = {t: (here / f"{t}.parquet").read_bytes() == (mini / f"{t}.parquet").read_bytes() for t in TABLES}
    assert all(same.values()), same
    for table in sorted((mini / "figures" / "tables").glob("*.csv")):
        assert (here / "figures" / "tables" / table.name).read_bytes() == table.read_bytes(), table.name


@pytest.mark.slow
def test_an_installed_copy_finds_profiles_in_the_folder_where_it_is_called(installed):
    command, work = installed
    text = (ROOT / "profiles" / "mini.toml").read_text().replace('name = "mini"', 'name = "mine"')
    (work / "mine.toml").write_text(text)
    assert "mine " in done([command, "profiles"], work)
    done([command, "run", "--profile", "mine", "--to", "01"], work)
    assert (work / "runs" / "mine" / "queries.parquet").is_file()


@pytest.mark.slow
def test_an_installed_copy_imports_outcomes_but_not_under_the_name_of_a_shipped_profile(installed):
    command, work = installed
    rows = [f"what is {i},{llm},{i % 2}" for i in range(40) for llm in ("ada", "bob")]
    (work / "own.csv").write_text("text,llm,score\n" + "\n".join(rows) + "\n")
    said = call([command, "import", "own.csv", "--profile", "mini"], work)
    assert said.returncode == 1 and "'mini' is a profile of the project: take another name" in said.stderr
    done([command, "import", "own.csv", "--profile", "own"], work)
    said = call([command, "run", "--profile", "own", "--to", "01"], work)
    assert said.returncode == 0 and "an estimate from another machine" in said.stderr
    assert (work / "runs" / "own" / "queries.parquet").is_file()


@pytest.mark.slow
def test_an_installed_copy_says_that_it_has_nothing_to_export(installed):
    command, work = installed
    said = call([command, "export"], work)
    assert said.returncode == 1 and "needs a checkout" in said.stderr
