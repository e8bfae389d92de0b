"What the files of tests share: their order, and the checkout's default run."

import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from filelock import FileLock

from llm_routing.study.tables import project_root

ROOT = project_root()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    "The files with the most slow tests come first: no worker is left with one of them at the end."
    slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
    items.sort(key=lambda item: -slow[item.path])


@pytest.fixture(scope="session")
def lock() -> FileLock:
    "For what works in `runs/mini`: of several workers, one at a time."
    (ROOT / "runs").mkdir(exist_ok=True)
    return FileLock(ROOT / "runs" / ".tests.lock")


@pytest.fixture(scope="session")
def mini(lock) -> Path:
    "The default run, made if it is not there."
    with lock:
        command = [sys.executable, "-m", "llm_routing.cli.runner", "run", "--profile", "mini"]
        subprocess.run(command, cwd=ROOT, check=True)
    return ROOT / "runs" / "mini"
