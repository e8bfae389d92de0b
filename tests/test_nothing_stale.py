"""On the command line: weights that were replaced in place, `--force` and `--fresh`, on a small study of two tiny LLMs;
and that study stopped at each rename of each stage."""

import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from safetensors.numpy import load_file, save_file

from llm_routing.generation.store import Store
from llm_routing.study.tables import project_root

ROOT = project_root()
sys.path.insert(0, str(ROOT / "campaigns"))
import renames  # noqa: E402


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> tuple[Path, Path]:
    "The small study's folder, with its run up to the scores in `run`, and a copy of it all."
    folder = tmp_path_factory.mktemp("small")
    renames.make_study(folder)
    llm_routing(folder, "--to", "04")
    return folder, shutil.copytree(folder, folder.with_name(f"{folder.name}-copy"))


@pytest.fixture
def small(made) -> Path:
    "The small study's folder as it was made, whatever other tests have done to it."
    folder, copy = made
    shutil.rmtree(folder)
    return shutil.copytree(copy, folder)


def llm_routing(folder: Path, *args: str) -> str:
    "What `run` says of the study in `folder`; it must succeed."
    command = [sys.executable, "-m", "llm_routing.cli.runner", "run", "--profile", str(folder / "small.toml")]
    done = subprocess.run([*command, "--run-dir", str(folder / "run"), *args], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout + done.stderr


def replace_in_place(file: Path) -> None:
    "Other weights of the same size, with the old time of change."
    was, weights = file.stat(), load_file(file)
    weights = {name: -w if w.ndim > 1 else w for name, w in weights.items()}
    save_file(weights, file, metadata={"format": "pt"})
    os.utime(file, ns=(was.st_atime_ns, was.st_mtime_ns))
    assert file.stat().st_size == was.st_size


@pytest.mark.slow
def test_weights_replaced_in_place_make_their_stages_run_again(small):
    assert "everything is up to date" in llm_routing(small, "--to", "04")
    before = pd.read_parquet(small / "run" / "responses.parquet")
    replace_in_place(small / "wren" / "model.safetensors")
    said = llm_routing(small, "--to", "02")
    assert "02_generation: weights of wren changed" in said and "everything is up to date" not in said
    after = pd.read_parquet(small / "run" / "responses.parquet")
    changed = before.text != after.text
    assert changed[before.llm == "wren"].any() and not changed[before.llm == "finch"].any()
    llm_routing(small, "--to", "04")
    replace_in_place(small / "encoder" / "model.safetensors")
    said = llm_routing(small, "--to", "04")
    assert f"04_routers: weights of {small / 'encoder'} changed" in said and "02_generation" not in said
    assert {p.name for p in small.iterdir()} == {"wren", "finch", "encoder", "small.toml", "run"}  # nothing beside it


@pytest.mark.slow
def test_force_uses_no_vectors_of_before(small):
    right = (small / "run" / "scores.parquet").read_bytes()
    [vectors] = [p for p in (small / "run" / "cache").rglob("*.sqlite") if p.stem != "predictions"]
    with sqlite3.connect(vectors) as db:
        db.execute("update vectors set vector = randomblob(length(vector))")
    (small / "run" / "scores.parquet").unlink()
    llm_routing(small, "--from", "04", "--to", "04")
    assert (small / "run" / "scores.parquet").read_bytes() != right  # a cache is trusted, where nothing else is said
    llm_routing(small, "--from", "04", "--to", "04", "--force")
    assert (small / "run" / "scores.parquet").read_bytes() == right


def put_other_texts(store: Store) -> int:
    "Replace the texts of all kept responses, under the same keys; how many."
    changed = 0
    for section in store.sections():
        rows, shards = store.read(section), store.shards(section)
        if "text" in rows:
            store.append(section, rows.assign(text="The answer is 7."), {"llm": "nobody"})
            for path in shards:
                Path(path).unlink()
            changed += len(rows)
    return changed


@pytest.mark.slow
@pytest.mark.parametrize("place", ["", "elsewhere"])
def test_fresh_uses_no_response_of_before(small, place):
    right = pd.read_parquet(small / "run" / "responses.parquet")
    where, requests = ["--set", f"generation.responses='{small / place}'"] if place else [], len(right) // 4
    llm_routing(small, "--to", "02", *where)
    kept = Store(small / place if place else small / "run" / "responses_store")
    assert put_other_texts(kept) == len(right)
    said = llm_routing(small, "--to", "02", "--fresh", *where)
    assert f"{requests} of {requests} requests" in said
    assert pd.read_parquet(small / "run" / "responses.parquet").text.equals(right.text)
    again = llm_routing(small, "--to", "02", "--fresh", *where)
    assert "02_generation: --fresh" in again and f"{requests} of {requests} requests" in again


LOOKS = """
import os, pathlib, sys
folder = pathlib.Path(sys.argv[1])
(folder / "read").read_text()
(folder / "asked").exists()
list((folder / "listed").iterdir())
(folder / "written").write_text("")
(folder / "written").read_text()
(folder / "moved").write_text("")
os.replace(folder / "moved", folder / "made")
(folder / "made").exists()
list(folder.iterdir())
"""


def test_the_campaign_sees_what_a_process_looks_at_before_it_writes_it(tmp_path):
    folder, log = tmp_path / "run", tmp_path / "looked"
    (folder / "listed").mkdir(parents=True)
    for name in ("read", "written"):
        (folder / name).write_text("before")
    env = os.environ | renames.hooked(tmp_path, renames.LOOK, LOOK=str(folder), LOOKED=str(log))
    subprocess.run([sys.executable, "-c", LOOKS, str(folder)], env=env, check=True)
    *alone, (last, *known) = [line.split("\t") for line in log.read_text().splitlines()]
    assert [name for name, *_ in alone] == [f"{folder}/{name}" for name in ("read", "asked", "listed/")]
    assert last == f"{folder}/" and {"read", "asked", "written", "made"} <= set(known)


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["02_generation", "04_routers"])
def test_a_stage_stopped_at_any_rename_is_made_again_as_it_was(small, tmp_path, stage):
    rows = renames.campaign(small, [stage], tmp_path, last="04")
    assert {"before", "after"} <= set(rows.moment) and (rows.number == rows.run_on_from).sum() > 3
    assert (rows.verdict == "held").all(), rows[rows.verdict != "held"].to_dict("records")
