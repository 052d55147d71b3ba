"""The files and servers that pages take for granted: prompts, data sets, configs that they show."""

import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from pipeline.evaluation.suites import COMPBENCH
from tests.docs.answers import FRENCH, answer
from tests.docs.pages import ROOT, tables_of
from tests.docs.places import IN_TABLES, KEY, SERVER, Rule, replaced
from tests.stand_in_server import stand_in_server

_LINES = '{"prompt": "three black squares"}\n{"prompt": "a red circle on grass"}\n'
_TEACHER = ("teacher.toml", "judge.toml", "serve.toml", "thinker.toml")
_ENDPOINT = """\
[method.endpoints.NAME]
model = "Qwen/Qwen3-VL-8B-Instruct"
[execution.endpoints.NAME]
url = "http://10.0.0.7:8000/v1"
api_key_env = "CRITIC_API_KEY"
"""
_SUITE = {
    f"T2I-CompBench/examples/dataset/{file}": f"a red dog {name} on the left of a blue cup\n"
    for name, file in COMPBENCH.files.items()
}
_JUDGES = """\
[scorers.blip_vqa]
model = "blip"
image_size = 32
[scorers.clipscore]
model = "clip"
[scorers.layout]
model = "grounding_dino"
depth = "dpt"
"""
_SCORER = '''\
from coppice import Score


class MyScorer:
    """Whether a prompt has enough of certain words: a share of its own."""

    name, version, subjects, needs_pictures = "mine", "1", frozenset({"trace"}), False
    columns = {"value": "float32"}

    def __init__(self, threshold: float = 0.5, words: tuple[str, ...] = ()) -> None:
        self._threshold, self._words = threshold, words

    def score(self, batch):
        return [Score(value=float(self._share(asked.prompt) >= self._threshold)) for asked in batch]

    def _share(self, prompt):
        words = prompt.split()
        return sum(word in self._words for word in words) / len(words)
'''
_RECIPE = """\
name = "mine"
kind = "sft"
scorers = ["toy@1"]
tasks = ["draw"]
[[filters]]
column = "toy.value"
min = 0.5
"""

PROVIDED = {
    "README.md": {"prompts.txt": "three black squares\n", "tiny-judges.toml": _JUDGES, **_SUITE},
    "docs/curate.md": {"my_module.py": _SCORER},
    "docs/endpoints.md": {
        "prompts.jsonl": _LINES,
        "judges.toml": _ENDPOINT.replace("NAME", "judge"),
        "reader.toml": _ENDPOINT.replace("NAME", "reader"),
        "train/captions.txt": f"{FRENCH}\na red cube\n",
    },
    "docs/judges.md": {"tiny-judges.toml": _JUDGES, **_SUITE},
    "docs/prompts.md": {
        "t2i_compbench/color_train.txt": "a red star\na blue circle and a green square\n",
        "t2i_compbench/color_val.txt": "a yellow cross\n",
        "t2i_r1_prompts.jsonl": '{"prompt": "three black squares"}\n',
    },
    "docs/storage.md": {"prompts.jsonl": _LINES},
    "docs/teacher.md": {"prompts.jsonl": _LINES, "prompts/all.jsonl": _LINES},
    "docs/train.md": {"mine.toml": _RECIPE},
}
"""By page, and by path in the clone."""

SHOWN = {
    "README.md": ("docs/teacher.md", _TEACHER),
    "docs/curate.md": ("docs/curate.md", ("judges.toml",)),
    "docs/endpoints.md": ("docs/endpoints.md", ("critic.toml",)),
    "docs/teacher.md": ("docs/teacher.md", _TEACHER),
}
"""Files whose text stands on a page: which one, and what its TOML blocks are called, in order."""

IN_BUCKET = {"prompts.jsonl": _LINES}

IN_HOME = {
    "keys": f"CRITIC_API_KEY={KEY}\n",
    ".aws/credentials": "".join(
        f"[{name}]\naws_access_key_id = key\naws_secret_access_key = secret\n"
        for name in ("default", "coppice")
    ),
}

_ADDRESS = re.compile(r"http://10\.0\.0\.\d:8000/v1")
_MODELS = ["Qwen/Qwen3-VL-8B-Instruct", "Qwen/Qwen3-VL-32B-Instruct"]


def files_of(page: str) -> dict[str, str]:
    """All files that a page takes for granted or shows, by path in the clone."""
    source, names = SHOWN.get(page, (page, ()))
    tables = zip(names, tables_of((ROOT / source).read_text()), strict=False)
    shown = {name: text for name, text in tables if name in (ROOT / page).read_text()}
    return {**PROVIDED.get(page, {}), **shown}


@contextmanager
def provided(page: str, clone: Path, home: Path) -> Iterator[dict[str, list[Rule]]]:
    """A page's files are there, and a server at each address in them. Yields what was replaced in
    which file.
    """
    files, rules = files_of(page), []
    with ExitStack() as servers:
        addresses = sorted(set(_ADDRESS.findall("".join(files.values()))))
        for address in addresses:
            server = servers.enter_context(stand_in_server(answer))
            server.models, server.key, server.answers_probes = _MODELS, KEY, False
            rules.append(Rule(typed=address, instead=server.url, reason=SERVER))
        told = {}
        for name, text in files.items():
            files[name], told[name] = replaced(text, [*IN_TABLES, *rules])
        for folder, texts in ((clone, files), (home, IN_HOME)):
            for name, text in texts.items():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                (folder / name).write_text(text)
        yield told
