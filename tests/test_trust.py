"""What breaks runs, and what hostile input does: a short campaign of those in `campaigns/`, and what the long ones
found."""

import ast
import json
import re
import shutil
import subprocess
import sys
from configparser import ConfigParser

import pytest
from hypothesis import Phase

from llm_routing.cli.running import open_run
from llm_routing.cli.stages import STAGE_NAMES
from llm_routing.study.tables import StudyError, project_root
from llm_routing.study.profiles import load_profile

ROOT = project_root()
sys.path.insert(0, str(ROOT / "campaigns"))
import faults  # noqa: E402
import fuzz  # noqa: E402


@pytest.mark.slow
def test_a_short_campaign_of_faults_does_no_harm():
    table = faults.campaign(quick=True)
    assert set(table.kind) >= {"killed", "stopped", "kernel died", "two runs", "disk full", "table broken"}
    assert not (table.verdict == "HARM").any(), table[table.verdict == "HARM"].to_dict("records")


def test_the_committed_campaign_is_complete_and_did_no_harm():
    import pandas as pd

    table = pd.read_csv(ROOT / "campaigns" / "faults.csv")
    assert (table.verdict == "held").sum() >= 200 and not table.verdict.isin(["HARM", "missed"]).any()
    assert table.seed.nunique() == 1  # one pass
    killed = table[table.kind == "killed"]
    assert set(killed["where"]) == set(STAGE_NAMES) and killed.groupby("where").how.nunique().min() >= 7


def test_the_committed_renames_did_no_harm():
    import pandas as pd

    table = pd.read_csv(ROOT / "campaigns" / "renames.csv")
    run_on = table[table.number == table.run_on_from].groupby("stage").size()
    assert set(table.stage) == set(STAGE_NAMES)
    assert (table.groupby("stage").number.agg(["count", "max"]).nunique(axis=1) == 1).all()  # every moment of each
    assert (table.verdict == "held").all() and run_on.min() >= 3
    assert table.groupby("stage").moment.nunique().eq(2).all()


def test_the_committed_fuzzing_is_half_an_hour_without_a_finding():
    import pandas as pd

    table = pd.read_csv(ROOT / "campaigns" / "fuzz.csv")
    assert set(table.target) == set(fuzz.TARGETS) and table.minutes.sum() >= 30
    assert not table.groupby(["target", "seed"]).findings.last().any()  # what was found is fixed, and was tried again


def test_the_committed_mutants_are_noticed_by_the_tests():
    import pandas as pd

    noticed = (
        pd.read_csv(ROOT / "campaigns" / "mutants.csv")
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


UNSAFE_WEIGHTS = {".bin", ".pt", ".pth", ".pkl", ".ckpt", ".h5", ".npy", ".joblib"}
UNSAFE_CODE = ("trust_remote_code=True", "pickle.load", "torch.load(", " eval(")


def test_weights_are_safetensors_and_no_code_is_downloaded():
    assert not {p.suffix for p in (ROOT / "data").rglob("*") if p.is_file()} & UNSAFE_WEIGHTS
    code = {p: p.read_text(encoding="utf-8") for p in (ROOT / "llm_routing").rglob("*.py")}
    assert len(code) > 30
    for file, text in code.items():
        assert not [x for x in UNSAFE_CODE if x in text], file


def test_every_model_is_loaded_without_its_code():
    calls = 0
    for file in (ROOT / "llm_routing").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "from_pretrained":
                said = {k.arg: getattr(k.value, "value", None) for k in node.keywords}
                assert said.get("trust_remote_code") is False, f"{file.name}, line {node.lineno}"
                calls += 1
    assert calls > 8


def test_models_of_the_paper_are_pinned_to_a_commit():
    for llm in load_profile("paper").generation.pool:
        assert len(llm.revision) == 40 and int(llm.revision, 16) >= 0, llm.name


def pins(file: str) -> dict[str, str]:
    "Package -> version, of a file of requirements."
    text = (ROOT / file).read_text(encoding="utf-8")
    return {plain(name): v for name, v in re.findall(r"^([\w.-]+)==([^\s;\\]+)", text, re.M)}


def plain(name: str) -> str:
    "A package's name in its one spelling."
    return re.sub(r"[-_.]+", "-", name).lower()


def test_the_lock_pins_what_is_tested_and_all_that_is_asked_for():
    lock, tested = pins("requirements.lock"), pins("constraints.txt")
    assert len(lock) > 150 and {p: v for p, v in lock.items() if tested.get(p) != v} == {}
    cfg = ConfigParser(delimiters=["="])
    cfg.read(ROOT / "settings.ini", encoding="utf-8")
    asked = (cfg["DEFAULT"]["requirements"] + " " + cfg["DEFAULT"]["dev_requirements"]).split()
    assert {plain(re.split(r"[\[=<>]", r)[0]) for r in asked} - set(lock) == {"torch"}


def test_all_that_the_chapters_import_is_a_requirement():
    from importlib.metadata import packages_distributions

    asked = {plain(re.split(r"[\[=<>]", r)[0]) for r in settings()["requirements"].split()}
    owners, needed = packages_distributions(), closure(asked)
    found = {}
    for chapter in sorted((ROOT / "nbs").glob("0?_*.ipynb")):
        for name in re.findall(r"^\s*(?:import|from) (\w+)", notebook_code(chapter), re.M):
            if name in owners and name != "llm_routing" and not {plain(d) for d in owners[name]} & needed:
                found.setdefault(name, chapter.name)
    assert found == {}


def closure(packages: set[str]) -> set[str]:
    "Some packages, what they need, and what that needs."
    from importlib.metadata import PackageNotFoundError, requires

    from packaging.requirements import Requirement

    found, waiting = set(), set(packages)
    while waiting:
        found.add(package := waiting.pop())
        try:
            needs = [Requirement(r) for r in requires(package) or []]
        except PackageNotFoundError:
            continue
        named = (plain(r.name) for r in needs if r.marker is None or r.marker.evaluate({"extra": ""}))
        waiting |= set(named) - found
    return found


def notebook_code(file) -> str:
    "All code of a notebook, its tests among it: a run executes these too."
    cells = json.loads(file.read_text(encoding="utf-8"))["cells"]
    return "\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "code")


def settings() -> dict[str, str]:
    "The project's settings."
    cfg = ConfigParser(delimiters=["="])
    cfg.read(ROOT / "settings.ini", encoding="utf-8")
    return dict(cfg["DEFAULT"])


def wanted_on_a_gpu_box() -> list[str]:
    "What the extra `gpu` asks for, itself and through the extras that it names."
    extras = re.findall(r"[\w]+", re.search(r"\[(.*)\]", settings()["gpu_requirements"])[1])
    return " ".join([settings()["requirements"], *(settings()[f"{e}_requirements"] for e in extras)]).split()


def test_the_gpu_versions_cover_all_that_is_asked_for():
    fixed = pins("constraints-gpu.txt")
    asked = {plain(re.split(r"[\[=<>]", r)[0]) for r in wanted_on_a_gpu_box()}
    assert {"vllm", "ray", "datasets", "openai", "torch", "papermill", "pytest"} <= asked and asked <= set(fixed)


def test_the_gpu_versions_fit_one_another_as_far_as_they_are_installed_here():
    from importlib.metadata import distributions

    from packaging.requirements import Requirement

    fixed, checked, wrong = pins("constraints-gpu.txt"), 0, []
    for package in distributions():
        if fixed.get(plain(package.name)) != package.version:
            continue
        for need in map(Requirement, package.requires or []):
            if need.marker is None or need.marker.evaluate({"extra": ""}):
                checked += 1
                if not need.specifier.contains(fixed.get(plain(need.name), "0"), prereleases=True):
                    wrong.append(f"{package.name} {package.version} needs {need}, not {fixed.get(plain(need.name))}")
    assert checked > 200 and wrong == []


@pytest.mark.slow
def test_all_gpu_versions_resolve_together_and_are_exactly_those_of_the_file():
    uv = shutil.which("uv")
    if not uv:
        pytest.skip("needs uv and a package index: pip install uv")
    line = "pip compile - --python-version 3.11.7 --python-platform x86_64-manylinux_2_28 --no-header --no-annotate"
    asked, fixed = "\n".join(wanted_on_a_gpu_box()), ROOT / "constraints-gpu.txt"
    done = subprocess.run([uv, *line.split(), "--constraint", fixed], input=asked, capture_output=True, text=True)
    if "client error" in done.stderr or "offline" in done.stderr.lower():
        pytest.skip("no package index can be reached")
    assert done.returncode == 0, done.stderr
    resolved = {plain(n): v for n, v in re.findall(r"^([\w.-]+)==([^\s;]+)", done.stdout, re.M)}
    assert resolved == pins("constraints-gpu.txt")


def test_every_locked_package_has_its_hashes():
    text = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    entries = re.split(r"\n(?=[a-z0-9])", text.partition("\naccelerate==")[2])
    assert all("--hash=sha256:" in entry for entry in entries)
