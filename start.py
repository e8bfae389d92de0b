"""Sets up a virtual environment in this checkout and runs the study or its tests, from nothing but Python 3.11.

python3 start.py mini     the whole study with the default profile
python3 start.py test     the tests
"""

import hashlib
import os
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
BIN = VENV / ("Scripts" if os.name == "nt" else "bin")
COMMANDS = {
    "mini": [[BIN / "llm-routing", "run", "--profile", "mini"]],
    "test": [[BIN / "python", "-m", "pytest", "-q"]],
}


def set_up() -> None:
    "Make the environment unless it was made from the same files: locked packages, then PyTorch, then this checkout."
    made_from = ("settings.ini", "setup.py", "constraints.txt", "requirements.lock")
    stamp, wanted = VENV / "made-from", hashlib.sha256(b"".join((ROOT / f).read_bytes() for f in made_from)).hexdigest()
    if stamp.is_file() and stamp.read_text() == wanted:
        return
    print("setting up .venv (once; some minutes)", flush=True)
    if not stamp.is_file():
        venv.create(VENV, with_pip=True)  # also where a first attempt was cut short
    pip = [BIN / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    pip += ["--no-compile"]  # Python compiles what is used when it is used; all that is there would take a minute
    torch = next(line for line in (ROOT / "constraints.txt").read_text().splitlines() if line.startswith("torch=="))
    for what in (
        ["--require-hashes", "--no-deps", "--requirement", ROOT / "requirements.lock"],
        ["--constraint", ROOT / "constraints.txt", torch],
        ["--no-deps", "--no-build-isolation", "--editable", ROOT],
    ):
        subprocess.run([*pip, *what], check=True, cwd=ROOT)
    stamp.write_text(wanted)


def main() -> int:
    if not (3, 11, 7) <= sys.version_info[:3] < (3, 12):
        here = sys.version.split()[0]
        print(f"this is Python {here}; the study needs Python 3.11.7 or a later 3.11: `python3.11 start.py ...`")
        return 2
    if len(sys.argv) < 2 or sys.argv[1] not in COMMANDS:
        print(__doc__)
        return 2
    try:
        set_up()
    except subprocess.CalledProcessError as e:
        print(f"the installation failed (see above): {' '.join(map(str, e.cmd))}")
        return 1
    except OSError as e:
        print(f"the installation failed: {e}; fix that, and run the same command again")
        return 1
    commands = [[*command, *sys.argv[2:]] for command in COMMANDS[sys.argv[1]]]
    return next((code for c in commands if (code := subprocess.run(c, cwd=ROOT).returncode)), 0)


if __name__ == "__main__":
    sys.exit(main())
