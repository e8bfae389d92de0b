"""On the command line: an LLM at an endpoint beside a local one, also one that dies; and a table with prices, whose
runs are cut, compared, verified and cited."""

import json
import os
import random
import re
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pandas as pd
import pytest

from llm_routing.generation.store import Store
from llm_routing.study.profiles import load_profile
from llm_routing.study.tables import StudyError, project_root

MARKUP = "<img src=x onerror=alert(1)>"  # may be a name in a table or in logs, and is text wherever it is shown
MIXED = """
name = "mixed"
description = "A local LLM and one at an endpoint"
needs = "an endpoint"

[source]
kind = "generate"
datasets = ["mini-math"]
queries = 20

[generation]
samples = 1
max_tokens = 16
few_shot = 0
latency = "none"
concurrency = 2
retries = 0
give_up_after = 5

[generation.prompts]
fcot = "<START_QUESTION>\\n{{query}}\\n<END_QUESTION>\\n<START_ANSWER>\\n"

[[generation.pool]]
name = "wren"
model = "data/tiny_llms/wren-base"
prompt = "fcot"

[[generation.pool]]
name = "hosted"
model = "organisation/hosted"
base_url = "http://127.0.0.1:{port}/v1"
key_env = "HOST_KEY"
send = "chat"
prompt = "zcot"

[routers]
names = ["mlc"]

[policies]
names = ["argmax"]
"""


def llm_routing(*words, status: int = 0) -> str:
    "What a command says; its exit status must be the one that is expected."
    line, env = [sys.executable, "-m", "llm_routing.cli.runner", *map(str, words)], os.environ | {"HOST_KEY": "k-123"}
    done = subprocess.run(line, capture_output=True, text=True, cwd=project_root(), env=env)
    assert done.returncode == status, (done.stdout + done.stderr)[-3000:]
    return done.stdout + done.stderr


class Endpoint(BaseHTTPRequestHandler):
    "Answers every request for a text until its server has `left` none."

    def do_GET(self):
        self._say(200, {"object": "list", "data": []})

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        with self.server.lock:
            self.server.asked.append((body["model"], self.headers["authorization"]))
            self.server.left -= 1
            alive = self.server.left >= 0
        text = {"role": "assistant", "content": "The answer is 7."}
        choice = {"index": 0, "message": text, "finish_reason": "stop", "logprobs": None}
        usage = {"prompt_tokens": 3, "completion_tokens": 5, "total_tokens": 8}
        reply = {"id": "x", "object": "chat.completion", "created": 0, "model": body["model"], "usage": usage}
        self._say(*((200, reply | {"choices": [choice]}) if alive else (503, {"error": {"message": "gone"}})))

    def _say(self, status, body):
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(data)))
        self.send_header("content-type", "application/json")
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args):
        pass


@pytest.fixture
def endpoint():
    pytest.importorskip("openai", reason="needs the extra llm-routing[openai]")
    server = ThreadingHTTPServer(("127.0.0.1", 0), Endpoint)
    server.lock, server.asked, server.left = threading.Lock(), [], 10_000
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()


@pytest.fixture
def mixed(endpoint, tmp_path) -> list:
    "The words that choose a profile with both kinds of LLM, and a run folder."
    (tmp_path / "mixed.toml").write_text(MIXED.format(port=endpoint.server_port))
    return ["--profile", tmp_path / "mixed.toml", "--run-dir", tmp_path / "run"]


def shown(notebook: Path) -> str:
    "What an executed notebook shows as Markdown and HTML, where nothing of `MARKUP` may be left as it is."
    outputs = [o for c in json.loads(notebook.read_text("utf-8"))["cells"] for o in c.get("outputs", [])]
    parts = ("".join(o.get("data", {}).get(kind, "")) for o in outputs for kind in ("text/markdown", "text/html"))
    assert "<img src=x" not in (text := "\n".join(parts))
    return text


ODD = "Sample ID\tPrompt\tModel Name\tCorrect\tSubset\treviewer\tResponse time (ms)\n"


def write_odd(file: Path, scores=("Yes", "no"), splits=("Training", "dev", "Holdout"), n: int = 60) -> None:
    "Tabs, other names, words as scores, one score missing, a column too many, milliseconds, and repeated rows."
    rows = [
        f"q{i}\tWhat is {i} plus {i}?\t{llm}\t{scores[(i + k) % 2]}\t{splits[i % 3]}\tanna\t{500 + i}"
        for i in range(n)
        for k, llm in enumerate(("ada", "bob"))
    ]
    rows[7] = rows[7].replace(scores[0], "").replace(scores[1], "")
    file.write_text(ODD + "\n".join(rows + rows[10:14]) + "\n", encoding="utf-8")


def test_import_says_all_that_it_recognised_and_the_run_is_estimated(tmp_path):
    write_odd(tmp_path / "odd.tsv")
    assert "--missing drop or --missing zero" in llm_routing("import", tmp_path / "odd.tsv", status=1)
    said = llm_routing("import", tmp_path / "odd.tsv", "--missing", "drop", "--profile", tmp_path / "odd.toml")
    for habit in (
        "separated by tabs",
        "'Prompt' is read as 'text'",
        "left out: reviewer",
        "'dev' as validation",
        "words are read as right",
        "4 rows repeat",
        "1 queries without a score",
        "milliseconds are turned into seconds",
        "Next: llm-routing run --profile",
    ):
        assert habit in said, habit
    run = ["run", "--profile", tmp_path / "odd.toml", "--run-dir", tmp_path / "run", "--to", "00"]
    assert "00_study: has not run yet; about 3 s, an estimate from another machine" in llm_routing(*run)


def test_import_tells_all_faults_of_a_file_at_once_and_writes_nothing(tmp_path):
    write_odd(tmp_path / "odd.tsv", scores=("maybe", "150"), splits=("train", "tset", "train"))
    said = llm_routing("import", tmp_path / "odd.tsv", "--profile", tmp_path / "odd.toml", status=1)
    for fault in ("score 'maybe' is not a number", "score 150 is not within", "split 'tset' is unknown", "no test"):
        assert fault in said, fault
    assert not (tmp_path / "odd.toml").exists()


@pytest.mark.slow
def test_an_endpoint_answers_for_its_own_llm_alone(endpoint, mixed, tmp_path):
    llm_routing("run", *mixed, "--to", "02")
    responses = pd.read_parquet(tmp_path / "run" / "responses.parquet").set_index("llm").text
    assert (responses["hosted"] == "The answer is 7.").all() and len(responses["hosted"]) == 60
    assert not (responses["wren"] == "The answer is 7.").any() and len(responses["wren"]) == 60
    assert endpoint.asked == [("organisation/hosted", "Bearer k-123")] * 60


@pytest.mark.slow
def test_an_endpoint_that_dies_ends_the_run_early_and_the_same_command_goes_on(endpoint, mixed, tmp_path):
    endpoint.left = 25
    said = llm_routing("run", *mixed, "--to", "02", status=1)
    assert "5 requests in a row failed" in said and "gone" in said and "k-123" not in said
    assert len(endpoint.asked) < 40
    store = Store(tmp_path / "run" / "responses_store")
    kept = pd.concat([store.read(section) for section in store.sections()])
    assert (kept.text == "The answer is 7.").sum() == 25
    endpoint.left, endpoint.asked[:] = 10_000, []
    llm_routing("run", *mixed, "--to", "02")
    assert len(endpoint.asked) == 60 - 25
    responses = pd.read_parquet(tmp_path / "run" / "responses.parquet")
    assert responses.llm.value_counts().to_dict() == {"wren": 60, "hosted": 60}


@pytest.mark.slow
def test_an_endpoint_that_is_not_there_is_said_by_doctor_dry_run_and_run(endpoint, mixed, tmp_path):
    endpoint.shutdown()
    endpoint.server_close()
    for words in (["doctor"], ["run", "--dry-run"], ["run", "--to", "02"]):
        assert "no answer" in llm_routing(*words, *mixed, status=1)
    assert not (tmp_path / "run" / "responses.parquet").exists()


def write_priced(file: Path) -> None:
    "Outcomes of 200 queries and three LLMs, the second of them expensive."
    rng, rows = random.Random(0), []
    for i in range(200):
        kind = i % 2
        text = f"Add {i} and {i % 7}" if kind else f"Which bird sings at {i} in the long night of the north?"
        for llm, cost, chance in (("ada", 0.1, (0.8, 0.3)), ("bob", 2.0, (0.3, 0.9)), (MARKUP, 0.5, (0.5, 0.5))):
            rows.append({"text": text, "llm": llm, "score": int(rng.random() < chance[kind]), "cost": cost + i / 1000})
    pd.DataFrame(rows).to_csv(file, index=False)


@pytest.fixture(scope="module")
def priced(tmp_path_factory) -> Path:
    "A folder with the profile of a table with costs, and its run in `a`."
    folder = tmp_path_factory.mktemp("priced")
    write_priced(folder / "mine.csv")
    llm_routing("import", folder / "mine.csv", "--profile", folder / "mine.toml")
    llm_routing("run", "--profile", folder / "mine.toml", "--run-dir", folder / "a", *FEW)
    return folder


FEW = "--set", "analysis.resamples=200", "--set", "routers.names=['mlc','recommended']"


@pytest.mark.slow
def test_the_costs_of_a_table_reach_its_results_and_its_report(priced):
    tables = priced / "a" / "figures" / "tables"
    main = pd.read_csv(tables / "main_results.csv").query("group == 'llm'").set_index("system")
    asked = pd.read_parquet(priced / "a" / "queries.parquet").query("split == 'test'").text
    rows = pd.read_csv(priced / "mine.csv")
    given = rows[rows.text.isin(asked)].groupby("llm").cost.mean()
    assert main.cost[given.index].tolist() == pytest.approx(given.tolist(), abs=1e-4)
    for page in (tables / "main_results.tex", tables / "main_results.md", priced / "a" / "figures" / "index.html"):
        assert "cost" in page.read_text("utf-8").lower(), page.name


@pytest.mark.slow
def test_a_name_with_markup_is_text_in_every_chapter_and_page(priced):
    chapters = {file.stem: shown(file) for file in sorted((priced / "a").glob("0*.ipynb"))}
    named = {name for name, text in chapters.items() if "&lt;img src=x" in text}
    assert len(chapters) == 8 and {"03_extraction", "06_analysis"} <= named
    pages = [p for p in (priced / "a" / "figures").rglob("*") if p.suffix in (".html", ".md", ".svg")]
    assert len(pages) > 20 and not [p for p in pages if "<img src=x" in p.read_text("utf-8")]


def test_an_llm_of_a_profile_has_no_markup_in_its_name():
    with pytest.raises(StudyError, match="generation.pool.0.name: String should match"):
        load_profile("mini", [f"generation.pool=[{{name='{MARKUP}', model='m'}}]"])


@pytest.mark.slow
def test_another_seed_is_another_run_and_the_two_are_compared(priced):
    said = llm_routing("run", "--profile", priced / "mine.toml", "--run-dir", priced / "b", "--set", "seed=5", *FEW)
    assert "points [" in said and "report: " in said and " stages ran (" in said
    seeds = [pd.read_parquet(priced / run / "queries.parquet").set_index("query_id").split for run in "ab"]
    assert seeds[0].equals(seeds[1].reindex(seeds[0].index))  # a split by hash is the same whatever the seed
    lines = llm_routing("compare", priced / "a", priced / "b", "--group", "router").splitlines()
    assert lines[0].split()[-5:] == ["first", "second", "difference", "low", "high"]
    for line in lines[1:]:
        first, second, difference, low, high = map(float, line.split()[-5:])
        assert second - first == pytest.approx(difference, abs=0.02) and low <= difference <= high
    assert any(" recommended " in line for line in lines)


@pytest.mark.slow
def test_status_verify_and_cite_speak_of_ones_own_run(priced):
    run = ["--profile", priced / "mine.toml", "--run-dir", priced / "a"]
    assert llm_routing("status", *run, *FEW).count("up to date") == 8
    assert "06_analysis      " in (said := llm_routing("status", *run)) and said.count("up to date") == 5
    assert "matches" in llm_routing("verify", *run, *FEW)
    for name in ("gain", "tables/main_results"):
        assert "@" in (cited := llm_routing("cite", f"mine/{name}", "--run-dir", priced / "a")) and "mine" in cited


@pytest.mark.slow
def test_llms_and_queries_are_cut_by_a_setting(priced):
    cut = ["--set", f"source.llms=['ada','{MARKUP}']", "--set", "source.queries=20"]
    for run, last in (("c", "03"), ("d", "01")):
        llm_routing("run", "--profile", priced / "mine.toml", "--run-dir", priced / run, "--to", last, *cut)
    queries, again = (pd.read_parquet(priced / run / "queries.parquet") for run in "cd")
    assert queries.split.value_counts().to_dict() == {"train": 20, "validation": 20, "test": 20}
    assert queries.equals(again)
    assert set(pd.read_parquet(priced / "c" / "outcomes.parquet").llm) == {"ada", MARKUP}
    llm_routing("run", "--run-dir", priced / "c", "--to", "05", "--set", "routers.names=['recommended']")
    said = llm_routing("compare", priced / "a", priced / "c", "--group", "llm")
    assert re.search(r"mine: compared on the 20 test queries that both have; \d+ of .*/a left out", said)
    assert [line.split()[-6] for line in said.splitlines()[1:3]] == ["20", "20"]
