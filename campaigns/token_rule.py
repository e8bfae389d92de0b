"""How far the rule for estimating tokens is off: writes data/prices/token_rule.csv.

    LLM_ROUTING_DATA=... python campaigns/token_rule.py FOLDER

FOLDER holds what two packages on PyPI ship, unpacked and never run: litellm (the tokenizers of OpenAI's LLMs) and
dashscope (Qwen's); for example `pip download --no-deps litellm dashscope`, then `unzip` into FOLDER. Needs tiktoken,
which is not one of the project's packages.
"""

import base64
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import tiktoken

from llm_routing.sources.costs import estimate_tokens
from llm_routing.sources.recorded import BENCHMARKS, files_of
from llm_routing.sources.files import fetch
from llm_routing.study.tables import project_root

LITELLM = "litellm/litellm_core_utils/tokenizers/"
WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
END = r"\s*[\r\n]+|\s+(?!\S)|\s+"
UPPER, LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
TOKENIZERS = {  # name -> its merges, and the pattern that cuts a text before they are applied
    "cl100k": (
        LITELLM + "9b5ad71b2ce5302211f9c61530b329a4922fc6a4",
        WORDS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|" + END,
    ),
    "o200k": (
        LITELLM + "fb374d419588a4632f3f557e76b4b70aebbca790",
        rf"[^\r\n\p{{L}}\p{{N}}]?{UPPER}*{LOWER}+{WORDS}?|[^\r\n\p{{L}}\p{{N}}]?{UPPER}+{LOWER}*{WORDS}?"
        r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|" + END,
    ),
    "qwen": (
        "dashscope/resources/qwen.tiktoken",
        WORDS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|" + END,
    ),
}
LLMS = {
    ("gsm8k", "gpt-3.5-turbo-0125"): "cl100k",
    ("gsm8k", "gpt-4o-2024-08-06"): "o200k",
    ("gsm8k", "gpt-4o-mini-2024-07-18"): "o200k",
    ("gsm8k", "Qwen2-7B-Instruct"): "qwen",
    ("gsm8k", "Qwen2-72B-Instruct"): "qwen",
    ("mmlu_pro", "Qwen1.5-7B-Chat"): "qwen",
    ("mmlu_pro", "Qwen1.5-72B-Chat"): "qwen",
    ("mmlu_pro", "Qwen1.5-110B"): "qwen",
}


def tokenizer(folder: Path, name: str) -> tiktoken.Encoding:
    file, pattern = TOKENIZERS[name]
    lines = (folder / file).read_bytes().splitlines()
    ranks = {base64.b64decode(token): int(rank) for token, rank in (line.split() for line in lines if line)}
    return tiktoken.Encoding(name, pat_str=pattern, mergeable_ranks=ranks, special_tokens={})


def measured(folder: Path, dataset: str, llm: str, name: str) -> dict:
    rows = BENCHMARKS[dataset].read(fetch(files_of(dataset)[llm]), llm)
    texts = rows.text.sample(600, random_state=0).tolist()
    counted = np.array([len(tokens) for tokens in tokenizer(folder, name).encode_ordinary_batch(texts)])
    estimated = estimate_tokens(texts)
    off = np.abs(estimated / np.maximum(counted, 1) - 1).mean()
    characters = sum(map(len, texts))
    return {"dataset": dataset, "llm": llm, "tokenizer": name, "responses": len(texts), "counted": counted.sum(),
            "estimated": estimated.sum(), "characters": characters, "mean_error": round(off, 4)}  # fmt: skip


if __name__ == "__main__":
    rows = [measured(Path(sys.argv[1]), dataset, llm, name) for (dataset, llm), name in LLMS.items()]
    pd.DataFrame(rows).to_csv(project_root() / "data" / "prices" / "token_rule.csv", index=False)
