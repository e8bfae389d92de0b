"""Makes requirements.lock again from settings.ini and constraints.txt. Needs uv (pip install uv) and a package index.

    python .ci/lock.py [--check]

--check: only say whether the lock pins what constraints.txt pins; needs neither uv nor a network.
"""

import re
import subprocess
import sys
import tempfile
from configparser import ConfigParser
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOCK, CONSTRAINTS = ROOT / "requirements.lock", ROOT / "constraints.txt"
HEADER = """\
# Every package of the study's CPU environment but PyTorch, with the sha256 of each file that the package index has of it: pip takes no other.
# PyTorch is pinned in constraints.txt by its version alone, since its builds for CPU and for each CUDA version are different files on different
# indexes, and which one is right depends on the machine. What only its CUDA builds need is left out too.
# Made by: python .ci/lock.py
"""
OTHER = r"python_full_version == '3.12|python_full_version >= '3.1[2-9]|sys_platform == 'emscripten'$"  # markers of what is not this study's Python
TORCH = r"(torch|triton|nvidia-|cuda-)"


def wanted() -> list[str]:
    "What settings.ini asks for, and what an editable installation needs besides."
    cfg = ConfigParser(delimiters=["="])
    cfg.read(ROOT / "settings.ini", encoding="utf-8")
    return [*(cfg["DEFAULT"]["requirements"] + " " + cfg["DEFAULT"]["dev_requirements"]).split(), "setuptools", "wheel"]


def resolve() -> str:
    "The lock's text, as uv resolves it for Python 3.11 on every system."
    with tempfile.TemporaryDirectory() as folder:
        (asked := Path(folder) / "asked.in").write_text("\n".join(wanted()) + "\n")
        subprocess.run(
            [
                "uv",
                "pip",
                "compile",
                "--quiet",
                asked,
                "--universal",
                "--python-version",
                "3.11.7",
                "--generate-hashes",
                "--no-header",
                "--no-annotate",
                "--constraint",
                CONSTRAINTS,
                "--output-file",
                out := Path(folder) / "out.txt",
            ],
            check=True,
        )
        entries = re.split(r"\n(?=\S)", out.read_text().strip())
    return (
        HEADER
        + "\n".join(e for e in entries if not re.match(TORCH, e) and not re.search(OTHER, e.split("\\")[0].strip()))
        + "\n"
    )


def pins(text: str) -> dict[str, str]:
    "Package -> version."
    return {
        re.sub(r"[-_.]+", "-", name).lower(): version
        for name, version in re.findall(r"^([\w.-]+)==([^\s;\\]+)", text, re.M)
    }


def main() -> int:
    if "--check" not in sys.argv:
        LOCK.write_text(resolve(), encoding="utf-8")
    lock, known = pins(LOCK.read_text(encoding="utf-8")), pins(CONSTRAINTS.read_text(encoding="utf-8"))
    asked = {re.sub(r"[-_.]+", "-", re.split(r"[\[=<>]", r)[0]).lower() for r in wanted()}
    faults = [f"{p}: {v} in the lock, {known[p]} in constraints.txt" for p, v in lock.items() if known.get(p, v) != v]
    faults += [f"{p} is asked for in settings.ini and not locked" for p in sorted(asked - set(lock) - {"torch"})]
    for fault in faults:
        print(fault)
    if faults:
        print("python .ci/lock.py makes the lock again")
    return bool(faults)


if __name__ == "__main__":
    sys.exit(main())
