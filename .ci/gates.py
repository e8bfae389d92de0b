"""What must hold of the package beside its tests.

    python .ci/gates.py            all gates; exits 1 where one fails
    python .ci/gates.py NAME ...   some of them

types     mypy, as pyproject.toml sets it
imports   the modules import each other without a circle and only backwards along the line; none has over 600 lines
form      code cells have a median of at most 6 lines and none over 40, chapters at most 40 code cells; no line is over
          120 columns; no word to avoid; tests use no private name of a module
dead      vulture: code that neither the package, its notebooks, its tests nor its campaigns use
prose     codespell over the notebooks' text cells, the READMEs and the profiles
licences  every installed package's licence, to build/licences.csv; fails for one that names none that is open
sbom      the environment as a CycloneDX bill of materials, to build/sbom.json
audit     known vulnerabilities of the locked packages, with pip-audit (pip install pip-audit); it asks a service on
          the network, so it is run by name only
"""

import ast
import csv
import json
import graphlib
import re
import statistics
import subprocess
import sys
import tempfile
from collections import Counter
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "build"
OPEN = (
    r"MIT|BSD|Apache|ISC|PSF|Python Software|MPL|Mozilla|Unlicense|Zlib|HPND|CC0|CNRI|LGPL|Lesser|NVIDIA|0BSD|"
    r"Public Domain|Historical|GPL"
)
# Used by name only, from a framework: pydantic's validators, torch's, transformers' and tokenizers' attributes,
# nbdev's exporter; a record's field; the part of a cache's key that a function itself does not read.
BY_NAME = (
    "forward,pre_tokenizer,decoder,max_new_tokens,exp_to,_test_,_export_,_exporti_,_exports_,_default_exp_,"
    "_public,_public_store,_no_secrets,_inside,_pool_is_there,_names_are_clear,_adds_up,solution,embeddings,pooler,"
    "fingerprint,generator"
)
LONGEST_MODULE, MEDIAN_CELL, LONGEST_CELL, WIDEST_LINE, LONGEST_CHAPTER = 600, 6, 40, 120, 40
CHAPTER = re.compile(r"0[0-7]_")
PUBLIC = {"_replace", "_fields", "_asdict", "_make"}  # of named tuples, whose documentation has them
AVOIDED = re.compile(r"\b(mend\w*|earn(s|ed)?|dear(er)?|luck|cure|seal(s|ed)?|whoever|shelf|shelves|harmless)\b", re.I)
OUR_PATHS = re.compile(rf"PosixPath\('/|{re.escape(str(ROOT))}\b|{re.escape(str(Path.home()))}/")  # of this machine


def notebooks() -> dict[str, list[dict]]:
    "The cells of each notebook."
    files = sorted((ROOT / "nbs").glob("*.ipynb"))
    return {p.stem: json.loads(p.read_text(encoding="utf-8"))["cells"] for p in files}


def sources(book: list[dict], kind: str) -> list[str]:
    "The texts of a notebook's cells of a kind."
    return ["".join(c["source"]) for c in book if c["cell_type"] == kind]


def runs(*command) -> bool:
    return subprocess.run([str(c) for c in command], cwd=ROOT).returncode == 0


def types() -> bool:
    return runs(sys.executable, "-m", "mypy")


def imports() -> bool:
    sys.path.insert(0, str(ROOT))
    from llm_routing.cli.notebooks import backward_imports, import_graph

    graph, faults = import_graph(), backward_imports()
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as e:
        faults.append(f"a circle: {' -> '.join(e.args[1])}")
    for file in sorted((ROOT / "llm_routing").rglob("*.py")):
        lines = len(file.read_text(encoding="utf-8").splitlines())
        if lines > LONGEST_MODULE:
            faults.append(f"{file.relative_to(ROOT)} has {lines} lines, over {LONGEST_MODULE}")
    print("\n".join(faults))
    return not faults


def lines_of(cell: str) -> int:
    "A code cell's lines, but blank ones and nbdev's directives."
    return sum(bool(line.strip()) and not line.startswith("#|") for line in cell.splitlines())


def private_names(test: str) -> set[str]:
    "The private names of other modules that a test imports, or takes from a module or a value other than `self`."
    nodes = list(ast.walk(ast.parse(test)))
    names = {a.name for n in nodes if isinstance(n, ast.ImportFrom) for a in n.names}
    names |= {n.attr for n in nodes if isinstance(n, ast.Attribute) and getattr(n.value, "id", "") != "self"}
    return {name for name in names if re.match(r"_[a-z]", name)} - PUBLIC


def form_faults(book: list[dict]) -> list[str]:
    "What a notebook's cells have of bad form. A table's row in a text cell may be as wide as it is."
    code, text = sources(book, "code"), sources(book, "markdown")
    sizes = [lines_of(c) for c in code]
    wide = [x for c in [*code, *text] for x in c.splitlines() if len(x) > WIDEST_LINE and not x.startswith("|")]
    words = sorted({m[0].lower() for c in [*code, *text] for m in AVOIDED.finditer(c)})
    faults = [f"a code cell has {max(sizes)} lines"] * (max(sizes) > LONGEST_CELL)
    faults += [f"its code cells have a median of {statistics.median(sizes):g} lines"] * (
        statistics.median(sizes) > MEDIAN_CELL
    )
    faults += [f"{len(wide)} lines are wider than {WIDEST_LINE}: {wide[0][:60]}..."] if wide else []
    faults += [f"words to avoid: {', '.join(words)}"] * bool(words)
    named = [c["execution_count"] for c in book if OUR_PATHS.search(json.dumps(c.get("outputs", [])))]
    return faults + [f"the output of cell {n} names a path of this machine" for n in named]


def form() -> bool:
    books = notebooks()
    faults = [f"{name}: {fault}" for name, book in books.items() for fault in form_faults(book)]
    counts = {name: len(sources(book, "code")) for name, book in books.items() if CHAPTER.match(name)}
    faults += [f"{name}: a chapter of {n} code cells" for name, n in counts.items() if n > LONGEST_CHAPTER]
    for file in sorted((ROOT / "tests").glob("test_*.py")):
        if found := private_names(file.read_text(encoding="utf-8")):
            faults.append(f"{file.name}: private names: {', '.join(sorted(found))}")
    print("\n".join(faults))
    return not faults


def dead() -> bool:
    with tempfile.TemporaryDirectory() as folder:
        for name, book in notebooks().items():
            code = "\n\n".join(sources(book, "code"))
            plain = "\n".join(line for line in code.splitlines() if not line.lstrip().startswith(("%", "!")))
            (Path(folder) / f"nb_{name}.py").write_text(plain, encoding="utf-8")
        said = subprocess.run(
            [
                sys.executable,
                "-m",
                "vulture",
                "llm_routing",
                "tests",
                "benchmarks",
                "campaigns",
                folder,
                "--min-confidence",
                "60",
                "--ignore-names",
                BY_NAME,
                "--ignore-decorators",
                "@app.command,@check,@reader,@router,@policy,@figure,@pytest.fixture,@field_validator,@model_validator",
            ],
            cwd=ROOT,
            capture_output=True,
            text=True,
        ).stdout
    found = [line for line in said.splitlines() if line.startswith("llm_routing")]
    for line in found:
        print(line)
    return not found


def prose() -> bool:
    with tempfile.TemporaryDirectory() as folder:
        for name, book in notebooks().items():
            (Path(folder) / f"{name}.md").write_text("\n\n".join(sources(book, "markdown")), encoding="utf-8")
        return runs(
            sys.executable,
            "-m",
            "codespell_lib",
            folder,
            "README.md",
            "profiles",
            "CITATION.cff",
            *ROOT.glob("data/*/README.md"),
        )


def licence(package: metadata.Distribution) -> str:
    "A package's licence in a few words."
    about = package.metadata
    named = [
        c.rsplit(" :: ", 1)[-1]
        for c in about.get_all("Classifier") or []
        if c.startswith("License ::") and not c.endswith("OSI Approved")
    ]
    text = about.get("License-Expression") or "; ".join(named) or (about.get("License") or "").strip().splitlines()[:1]
    return (text if isinstance(text, str) else "".join(text))[:80]


def licences() -> bool:
    BUILD.mkdir(exist_ok=True)
    rows = sorted(
        {(p.metadata["Name"], p.version, licence(p)) for p in metadata.distributions()}, key=lambda r: r[0].lower()
    )
    with open(BUILD / "licences.csv", "w", newline="", encoding="utf-8") as f:
        csv.writer(f, lineterminator="\n").writerows([("package", "version", "licence"), *rows])
    print(
        ", ".join(
            f"{n} {name}"
            for name, n in Counter(
                re.search(OPEN, r[2])[0] if re.search(OPEN, r[2]) else "?" for r in rows
            ).most_common()
        )
    )  # type: ignore[index]
    unclear = [r for r in rows if not re.search(OPEN, r[2])]
    for row in unclear:
        print("licence to be looked at:", *row)
    return not unclear


def sbom() -> bool:
    BUILD.mkdir(exist_ok=True)
    done = runs(
        sys.executable,
        "-m",
        "cyclonedx_py",
        "environment",
        "--output-reproducible",
        "--of",
        "JSON",
        "-o",
        BUILD / "sbom.json",
        sys.executable,
    )
    if done:
        print(
            len(json.loads((BUILD / "sbom.json").read_text(encoding="utf-8"))["components"]),
            "components in build/sbom.json",
        )
    return done


def audit() -> bool:
    pins = re.findall(r"^[\w.-]+==[^\s;\\]+", (ROOT / "requirements.lock").read_text(encoding="utf-8"), re.M)
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as f:
        f.write("\n".join(pins) + "\n")
        f.flush()
        return runs(
            sys.executable,
            "-m",
            "pip_audit",
            "--no-deps",
            "--disable-pip",
            "--progress-spinner",
            "off",
            "--strict",
            "-r",
            f.name,
        )


def main() -> int:
    gates = {f.__name__: f for f in (types, imports, form, dead, prose, licences, sbom)}
    asked = sys.argv[1:] or list(gates)
    if unknown := set(asked) - {*gates, "audit"}:
        print(f"no gate {min(unknown)!r}\n{__doc__}")
        return 2
    failed = [name for name in asked if not {**gates, "audit": audit}[name]()]
    print(
        f"{len(asked) - len(failed)} of {len(asked)} gates passed"
        + (f"; failed: {', '.join(failed)}" if failed else "")
    )
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
