"What breaks runs, and what hostile input does: a short campaign of the ones in `benchmarks/`, and what the long ones found."

import subprocess
import sys

import pytest
from hypothesis import Phase

from llm_routing.cli.runner import STAGE_NAMES, open_run
from llm_routing.study.tables import StudyError, project_root
from llm_routing.study.profiles import load_profile

ROOT = project_root()
sys.path.insert(0, str(ROOT / "benchmarks"))
import faults  # noqa: E402
import fuzz  # noqa: E402


def test_a_short_campaign_of_faults_does_no_harm():
    table = faults.campaign(quick=True)
    assert set(table.kind) >= {"killed", "stopped", "kernel died", "two runs", "disk full", "table broken"}
    assert not (table.verdict == "HARM").any(), table[table.verdict == "HARM"].to_dict("records")


def test_the_committed_campaign_is_whole_and_without_harm():
    import pandas as pd

    table = pd.read_csv(ROOT / "benchmarks" / "faults.csv")
    assert (table.verdict == "held").sum() >= 200 and not table.verdict.isin(["HARM", "missed"]).any()
    assert table.seed.nunique() == 1  # one pass
    killed = table[table.kind == "killed"]
    assert set(killed["where"]) == set(STAGE_NAMES) and killed.groupby("where").how.nunique().min() >= 7


def test_the_committed_fuzzing_is_half_an_hour_without_a_finding():
    import pandas as pd

    table = pd.read_csv(ROOT / "benchmarks" / "fuzz.csv")
    assert set(table.target) == set(fuzz.TARGETS) and table.minutes.sum() >= 30
    assert not table.groupby(["target", "seed"]).findings.last().any()  # what was found is mended, and was tried again


def test_the_committed_mutants_are_noticed_by_the_tests():
    import pandas as pd

    noticed = (
        pd.read_csv(ROOT / "benchmarks" / "mutants.csv")
        .assign(noticed=lambda t: t.tests != "passed")
        .groupby("module")
        .noticed
    )
    assert (
        set(noticed.groups) == {"extraction", "policies", "statistics"}
        and noticed.mean().min() > 0.85
        and noticed.size().min() >= 90
    )


@pytest.mark.parametrize("name", list(fuzz.TARGETS))
def test_a_short_look_for_input_that_breaks_a_reader(name):
    fuzz.look(name, max_examples=25, derandomize=True, phases=[Phase.generate])()


@pytest.mark.parametrize("name", ["\x80" * 250, "a/b", "..", "\udcff", "\x00"])
def test_a_name_that_no_profile_can_have_is_refused(name):
    with pytest.raises(StudyError, match="no profile"):
        load_profile(name)


def test_a_stop_by_a_scheduler_is_a_clear_message(tmp_path):
    job = subprocess.Popen(
        [sys.executable, "-m", "llm_routing.cli.runner", "run", "--run-dir", str(tmp_path), "--to", "00"],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
    )
    while job.poll() is None and not (tmp_path / ".lock").exists():
        pass
    job.terminate()
    said = job.communicate()[1]
    assert job.returncode == 130 and "the same command goes on" in said and "Traceback" not in said


def test_no_secret_is_kept_by_a_run(tmp_path):
    for change in (
        "generation.base_url='https://u:hunter2@h/v1'",
        "generation.engine_args={api_key='hunter2'}",
        "generation.pool=[{name='a',model='m',engine_args={hf_token='hunter2'}}]",
    ):
        with pytest.raises(StudyError) as e:
            open_run("mini", str(tmp_path), [change])
        assert "hunter2" not in str(e.value)
    assert not [p for p in tmp_path.rglob("*") if p.is_file() and b"hunter2" in p.read_bytes()]


def test_weights_are_safetensors_and_no_code_is_downloaded():
    weights = {p.suffix for p in (ROOT / "data").rglob("*") if p.is_file()} & {
        ".bin",
        ".pt",
        ".pth",
        ".pkl",
        ".ckpt",
        ".h5",
        ".npy",
        ".joblib",
    }
    assert not weights
    code = {p.name: p.read_text(encoding="utf-8") for p in (ROOT / "llm_routing").glob("*.py")}
    for name, text in code.items():
        assert (
            "trust_remote_code=True" not in text
            and "pickle.load" not in text
            and "torch.load(" not in text
            and " eval(" not in text
        ), name


def test_models_of_the_paper_are_pinned_to_a_commit():
    for llm in load_profile("paper").generation.pool:
        assert len(llm.revision) == 40 and int(llm.revision, 16) >= 0, llm.name


def test_the_lock_pins_what_is_tested():
    assert (
        subprocess.run([sys.executable, ROOT / ".ci" / "lock.py", "--check"], capture_output=True, text=True).stdout
        == ""
    )
    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    assert len(_entries(lock)) > 150 and all("--hash=sha256:" in entry for entry in _entries(lock))


def _entries(lock: str) -> list[str]:
    "A package with its hashes each."
    lines, entries = [line for line in lock.splitlines() if not line.startswith("#")], []
    for line in lines:
        if not line.startswith(" "):
            entries.append("")
        entries[-1] += line
    return entries
