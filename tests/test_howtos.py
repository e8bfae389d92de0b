"The README's how-tos, with the code and the commands as they are printed there."

import io
import json
import os
import random
import re
import shutil
import subprocess
import sys
import threading
from http.server import ThreadingHTTPServer
from pathlib import Path

import pandas as pd
import pytest
from test_command_line import Endpoint

from llm_routing.cli.preflight import graphics, installed
from llm_routing.study.profiles import load_profile
from llm_routing.study.tables import project_root

ROOT = project_root()


def blocks(kind: str) -> list[str]:
    "The code blocks of a kind in the index, which becomes the README."
    cells = json.loads((ROOT / "nbs" / "index.ipynb").read_text(encoding="utf-8"))["cells"]
    text = "\n\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "markdown")
    return re.findall(rf"^```{kind}\n(.*?)^```", text, re.M | re.S)


def command(line: str) -> list[str]:
    "A printed command's words, for this Python."
    return line.partition("#")[0].replace("llm-routing", f"{sys.executable} -m llm_routing.cli.runner", 1).split()


def call(line: str, cwd: Path) -> str:
    "What a printed command says; it must succeed."
    done = subprocess.run(command(line), cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    return done.stdout


@pytest.fixture
def checkout(tmp_path) -> Path:
    "A folder that is a checkout to the commands, so that the printed lines run in it word for word."
    for folder in ("nbs", "profiles"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    for file in ("settings.ini", "constraints.txt"):
        shutil.copy(ROOT / file, tmp_path)
    for folder in ("data", "examples"):
        (tmp_path / folder).symlink_to(ROOT / folder)
    return tmp_path


def offline(line: str, cwd: Path, **env: str) -> tuple[int, str]:
    "The exit status of a printed command and what it says, where the hub is out of reach."
    env = os.environ | {"HF_HUB_OFFLINE": "1"} | env
    done = subprocess.run(command(line), cwd=cwd, capture_output=True, text=True, env=env)
    return done.returncode, done.stdout + done.stderr


def printed(words: str) -> list[str]:
    "The printed block of commands that holds certain words, a line each."
    return next(b for b in blocks("sh") if words in b).strip().splitlines()


def outcomes(file: Path) -> None:
    "Write a file as somebody may have it: other names, True and False, no splits, a column too many."
    rng, rows = random.Random(0), []
    for i in range(150):
        kind = rng.randrange(2)
        text = (
            f"Add {i} and {rng.randrange(50)}" if kind else f"Which bird sings at {i} in the long night of the north?"
        )
        for llm, chance in (("ada", (0.8, 0.3)), ("bob", (0.3, 0.8)), ("cy", (0.5, 0.5))):
            right = rng.random() < chance[kind]
            rows.append({"id": f"q{i}", "prompt": text, "model": llm, "correct": right, "note": "x"})
    pd.DataFrame(rows).to_csv(file, index=False)


def logs(folder: Path) -> None:
    "Write sample logs of five LLMs, in the form of lm-evaluation-harness."
    rng = random.Random(0)
    for i, llm in enumerate(("ada", "bob", "cy", "dot", "<i>eve")):
        rows = []
        for k in range(100):
            right = rng.random() < (0.8 if k % 5 == i else 0.4)
            doc = {"question": f"What is {k} plus {k}, said {'twice ' * (k % 5)}?"}
            answer = f"The answer is {2 * k + (not right)}."
            rows.append({"doc_id": k, "doc": doc, "target": str(2 * k), "resps": [[answer]], "filter": "none"})
        (folder / f"org__{llm}").mkdir(parents=True)
        text = "".join(json.dumps(r) + "\n" for r in rows)
        (folder / f"org__{llm}" / "samples_sums_2026-01-02T03-04-05.678.jsonl").write_text(text)


@pytest.mark.slow
def test_own_outcomes_and_an_own_router_as_the_readme_says(checkout):
    imports, run = printed("llm-routing import outcomes.csv")
    outcomes(checkout / "outcomes.csv")
    call(imports, checkout)
    router = next(b for b in blocks("python") if "register_router" in b)
    (checkout / "profiles" / "my_routers.py").write_text(router)
    profile = checkout / "profiles" / "mine.toml"
    text = profile.read_text().replace(
        "[routers]\nnames = [", '[routers]\nmodules = ["my_routers"]\nnames = ["shortest", '
    )
    profile.write_text(text)
    said = call(run, checkout)
    assert "report: runs/mine/figures/index.html" in said and "points [" in said
    assert (checkout / "runs" / "mine" / "figures" / "index.html").stat().st_size > 100_000
    results = pd.read_parquet(checkout / "runs" / "mine" / "results.parquet")
    assert "shortest" in set(results.system) and "ada" in set(results.system)
    train, route = printed("llm-routing train")
    assert "ada" in call(train, checkout)
    texts = [f"Add {i} and 2" for i in range(30)]
    (checkout / "questions.jsonl").write_text("".join(json.dumps({"text": t}) + "\n" for t in texts))
    routes = pd.read_csv(io.StringIO(call(route, checkout)))
    assert routes.text.tolist() == texts and set(routes.llm) <= {"ada", "bob", "cy"}
    use = next(b for b in blocks("python") if "load_router" in b)
    done = subprocess.run([sys.executable, "-c", use], cwd=checkout, capture_output=True, text=True)
    assert done.stdout.split()[0] in {"ada", "bob", "cy"}, done.stderr


@pytest.mark.slow
def test_own_logs_as_the_readme_says(checkout):
    imports, run = printed("llm-routing import eval_logs")
    logs(checkout / "eval_logs")
    assert "5 LLMs, 500 responses" in call(imports, checkout)
    said = call(run, checkout)
    assert "report: runs/evals/figures/index.html" in said and "points [" in said
    results = pd.read_parquet(checkout / "runs" / "evals" / "results.parquet")
    best = results[results.group == "llm"].accuracy.max()
    assert 35 < best < 65 and set(results.n) == {100}
    responses = (checkout / "runs" / "evals" / "02_generation.ipynb").read_text("utf-8")
    assert "are those of &lt;i&gt;eve" in responses  # as text, not as markup


def test_the_printed_citations_and_figure_come_out(tmp_path):
    for line in printed("llm-routing cite"):
        said = call(line, tmp_path)
        assert "@" in said if " cite " in line else (tmp_path / said.strip()).stat().st_size > 1000


@pytest.mark.slow
def test_what_is_printed_of_runs_is_run_or_planned(tmp_path):
    for line in (one.partition("#")[0] for one in printed("llm-routing doctor")):
        if " run " in line:  # CI runs the whole study by itself
            assert "Nothing is missing." in call(line + " --dry-run", tmp_path)
        elif " doctor " in line:
            status, said = offline(line, tmp_path)
            assert status == bool(faults := said.count("\nfault ")) and (faults or installed("vllm"))
        elif " download " not in line or os.environ.get("LLM_ROUTING_DATA"):
            assert re.search("has not run yet|up to date|external files are here|recommended", call(line, tmp_path)), (
                line
            )


GPU_LINES = [line for words in ("--dry-run", "engine=ray") for line in printed(words) if "--profile paper" in line]


@pytest.mark.slow
@pytest.mark.skipif(bool(graphics()[0]), reason="here the printed lines would begin the paper's study")
@pytest.mark.parametrize("line", GPU_LINES)
def test_the_printed_runs_of_the_paper_stop_where_they_ask_for_a_gpu(line, tmp_path):
    status, said = offline(line, tmp_path, LLM_ROUTING_BENCHMARKS=str(tmp_path))
    wanted = "the questions cannot be read" if "--partial" in line else "none, and this profile needs one"
    assert status == 1 and wanted in said and "Traceback" not in said
    assert ("7 LLMs x 10 samples with vllm" in said and "US dollars" in said) == ("--dry-run" in line)
    assert ("ray is not installed" in said) == ("engine=ray" in line and not installed("ray"))
    assert not [p for p in tmp_path.rglob("*") if p.suffix in (".parquet", ".ipynb")]


def sampled(words: list[str], cwd: Path) -> subprocess.CompletedProcess:
    "What `examples/sample_one.py` says, called as it is printed."
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    env = os.environ | {"HF_HUB_OFFLINE": "1", "PATH": path, "LLM_ROUTING_BENCHMARKS": str(cwd)}
    return subprocess.run(words, cwd=cwd, capture_output=True, text=True, env=env)


@pytest.mark.slow
def test_one_llm_is_sampled_into_a_store_that_a_run_finds(checkout):
    [sample] = [line for line in printed("examples/sample_one.py") if "sample_one" in line]
    done = sampled(sample.split(), checkout)  # to the questions, which are on the hub
    assert done.returncode == 1 and done.stderr.startswith("gsm8k") and "Traceback" not in done.stderr
    small = 'extends = "mini"\nname = "paper"\n[source]\nqueries = 5\n[generation]\nsamples = 1\n'
    (checkout / "profiles" / "paper.toml").write_text(small)  # the paper's own needs a GPU
    done = sampled(sample.replace("gemma-7b", "owl-chat").replace("/shared", str(checkout)).split(), checkout)
    assert "responses of owl-chat in" in done.stdout and not done.returncode, done.stderr
    assert list((checkout / "responses").rglob("*.parquet"))


@pytest.fixture
def endpoint():
    pytest.importorskip("openai", reason="needs the extra llm-routing[openai]")
    server = ThreadingHTTPServer(("127.0.0.1", 0), Endpoint)
    server.lock, server.asked, server.left = threading.Lock(), [], 10_000
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()


@pytest.mark.slow
def test_the_printed_llms_are_looked_for_and_then_sampled_beside_those_of_mini(checkout, endpoint):
    block, mini = next(b for b in blocks("toml") if "generation.pool" in b), checkout / "profiles" / "mini.toml"
    text = mini.read_text(encoding="utf-8") + "\n" + block
    mini.write_text(text)
    pool = load_profile(str(mini)).generation.pool
    assert {"my-llm", "hosted-llm"} <= {m.name for m in pool} and len(pool) == 9
    status, said = offline("llm-routing doctor --profile mini", checkout)
    assert status == 1 and "my-llm (organisation/model): hub out of reach" in said
    assert "LLM 'hosted-llm': the environment variable HOST_API_KEY is not set" in said
    text = text.replace("https://host.example", f"http://127.0.0.1:{endpoint.server_port}")
    mini.write_text(text.replace("organisation/model", "data/tiny_llms/owl-chat"))
    few = "--set source.queries=3 --set generation.live_slice=0 --set generation.latency=none --to 02"
    status, said = offline(f"llm-routing run --profile mini {few}", checkout, HOST_API_KEY="k-123")
    assert status == 0, said[-3000:]
    [file] = (checkout / "runs").glob("mini-*/responses.parquet")
    texts = pd.read_parquet(file).groupby("llm").text.agg(set)
    assert texts["hosted-llm"] == {"The answer is 7."} != texts["my-llm"] and len(texts) == 9
    assert set(endpoint.asked) == {("organisation/other", "Bearer k-123")}


def test_every_printed_command_is_one_that_there_is():
    lines = [line for b in blocks("sh") for line in b.splitlines() if line.startswith("llm-routing")]
    commands = {line.split()[1] for line in lines}
    said = call("llm-routing --help", ROOT)
    assert len(commands) > 4 and all(re.search(rf"\b{c}\b", said) for c in commands)


def test_every_printed_profile_and_setting_is_valid():
    lines = [line.partition("#")[0] for b in blocks("sh") for line in b.splitlines() if "--profile" in line]
    words_of = [line.split() for line in lines]
    made = {words[words.index("--profile") + 1] for words in words_of if words[1] == "import"}
    for words in (w for w in words_of if not made & set(w)):
        changes = [words[i + 1] for i, w in enumerate(words) if w == "--set"]
        load_profile(words[words.index("--profile") + 1], changes)
