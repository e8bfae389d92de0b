"The study as a whole: what one command gives, twice, and the numbers that must come out."

import subprocess
import sys
import time

import pandas as pd
import pytest

from llm_routing.cli.running import checksums, open_run, publish
from llm_routing.cli.stages import STAGE_NAMES
from llm_routing.study.runs import Run
from llm_routing.study.tables import StudyError, project_root

ROOT = project_root()
COLUMNS = ["dataset", "group", "system", "policy", "n", "accuracy", "ci_low", "ci_high", "latency_s", "usage"]


def study(*args: str) -> subprocess.CompletedProcess:
    "Run the console command's `run`, which must succeed."
    done = subprocess.run(
        [sys.executable, "-m", "llm_routing.cli.runner", "run", *args], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done


def git(*args: str) -> str:
    "What git says."
    return subprocess.run(["git", *args], cwd=ROOT, capture_output=True, text=True).stdout


@pytest.mark.slow
def test_a_second_run_skips_every_stage_within_15_seconds(mini, lock):
    with lock:
        began = time.perf_counter()
        said = study("--profile", "mini").stdout
        assert time.perf_counter() - began < 15
    assert "everything is up to date" in said
    assert "mini-math: recommended " in said and "points [" in said and "report: " in said


@pytest.mark.slow
def test_a_changed_setting_runs_in_a_folder_of_its_own_and_only_what_it_touches(mini):
    figures = {p.name: p.stat().st_mtime_ns for p in (mini / "figures").iterdir()}
    before = git("status", "--porcelain")
    said = study("--profile", "mini", "--from", "06", "--set", "analysis.resamples=200")
    assert git("status", "--porcelain") == before
    assert "05_policies: the same as in mini, taken from there" in said.stderr
    assert "2 stages ran" in said.stdout and "runs/mini-" in said.stdout
    assert figures == {p.name: p.stat().st_mtime_ns for p in (mini / "figures").iterdir()}
    with pytest.raises(StudyError, match="it is not published"):
        publish(open_run("mini", changes=["analysis.resamples=200"], make=False))


@pytest.mark.slow
@pytest.mark.parametrize("profile", ["mini", "public"])
def test_the_tables_have_the_committed_checksums(profile):
    """Exact tables in full, selections by whom they call. Scores are left to these: their last digits depend on
    the machine."""
    run, file = Run.open(profile), f"figures/{profile}/tables/checksums.csv"
    committed = git("show", f"HEAD:{file}")
    if not committed or not run.path("results").is_file():
        pytest.skip(f"{profile} has no committed checksums, or has not been run here")
    assert checksums(run).to_csv(index=False, lineterminator="\n") == committed


@pytest.mark.slow
def test_every_stage_leaves_its_executed_notebook_and_the_run_its_provenance(mini):
    assert all((mini / f"{name}.ipynb").is_file() for name in STAGE_NAMES)
    assert (mini / "provenance.json").is_file() and (mini / "study.json").is_file()


@pytest.mark.parametrize("profile", ["mini", "public", "recorded"])
def test_the_committed_figures_and_tables_are_there(profile):
    figures = ROOT / "figures" / profile
    assert {p.suffix for p in figures.glob("accuracy.*")} >= {".pdf", ".svg"}
    results = pd.read_csv(figures / "tables" / "main_results.csv")
    assert set(COLUMNS) <= set(results) and set(results.group) == {"bound", "llm", "router"}
    assert (results.ci_low <= results.accuracy).all() and (results.accuracy <= results.ci_high).all()
    assert r"\begin{longtable}" in (figures / "tables" / "main_results.tex").read_text()


def test_public_holds_the_published_numbers():
    "RouterDC, Table 1, and the oracle over its test files."
    results = pd.read_csv(ROOT / "figures" / "public" / "tables" / "main_results.csv").set_index(["dataset", "system"])
    expected = {
        ("gsm8k", "dolphin-2.9-llama3-8b"): (1319, 69.81),
        ("gsm8k", "MetaMath-Mistral-7B"): (1319, 69.63),
        ("gsm8k", "oracle"): (1319, 83.32),
        ("mmlu", "Meta-Llama-3-8B"): (4213, 64.59),
        ("mmlu", "oracle"): (4213, 85.26),
    }
    for row, (n, accuracy) in expected.items():
        found = results.loc[[row]].iloc[0]
        assert found.n == n and round(found.accuracy, 2) == accuracy, row


def test_recorded_holds_what_is_known_of_its_pools():
    "Of 23 and 33 LLMs: the best of each pool, the oracle, and where routing gains; the split moves these by a point."
    results = pd.read_csv(ROOT / "figures" / "recorded" / "tables" / "main_results.csv")
    results = results.fillna({"policy": ""}).set_index(["dataset", "pool", "system", "policy"])

    def found(*row, column="accuracy"):
        return results[column].to_dict()[row]

    single, oracle = ("best_single", "train"), ("oracle", "")
    for dataset, pool, best, perfect in (
        ("mmlu_pro", "small", 44.1, 76.4),
        ("mmlu_pro", "mid", 49.9, 83.9),
        ("gsm8k", "small", 87.4, 97.4),
        ("gsm8k", "all", 96.7, 99.4),
    ):
        assert abs(found(dataset, pool, *single) - best) < 1.3, (dataset, pool)
        assert abs(found(dataset, pool, *oracle) - perfect) < 1.3, (dataset, pool)
    assert 0.8 < found("mmlu_pro", "small", "ridge_tfidf", "argmax", column="gain") < 4.6
    assert found("mmlu_pro", "mid", "ridge_tfidf", "best5_vote", column="gain") > 7.5
    assert abs(found("mmlu_pro", "paper_kin", "recommended", "argmax", column="gain")) < 0.5
    assert found("gsm8k", "small", "ridge_tfidf", "argmax", column="gain") < 1
