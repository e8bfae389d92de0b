"""Sample one LLM of a profile into a response store that others share: for several machines at once.

    python examples/sample_one.py PROFILE LLM STORE [REPLICAS]

Each machine takes other LLMs. The run that follows (`--set generation.responses=STORE`) finds all responses there.
"""

import sys

from llm_routing.generation.sampling import answer_queries
from llm_routing.generation.store import Store
from llm_routing.sources.queries import load_queries
from llm_routing.study.profiles import load_profile
from llm_routing.study.tables import StudyError


def main(profile: str, llm: str, store: str, replicas: str = "1") -> int:
    settings, kept = load_profile(profile), Store(store)
    pool = [m for m in settings.generation.pool if m.name == llm]
    if not pool:
        print(f"{profile} has no LLM {llm!r}; it has {', '.join(m.name for m in settings.generation.pool)}")
        return 2
    one = settings.generation.model_copy(update={"pool": pool, "replicas": int(replicas)})
    table = answer_queries(load_queries(settings), one, kept, [kept], show=lambda line: print(line, flush=True))
    print(f"{len(table):,} responses of {llm} in {store}")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(*sys.argv[1:]))
    except StudyError as e:
        sys.exit(str(e))
