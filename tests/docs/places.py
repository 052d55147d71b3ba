"""What of a page's commands is replaced by what this machine has, and what is not run, each with
the reason. Nothing else is changed.
"""

import re
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Rule:
    """A part of commands, and what is put there."""

    typed: str  # a pattern
    instead: str
    reason: str


REPLACED = (
    Rule(
        typed=r"deepseek-ai/Janus-Pro-7B",
        instead="tiny --limit 2 --set method.sampling.max_text_tokens=16",
        reason="weights: the bundled random model, for two prompts and few words",
    ),
    Rule(typed=r" --set execution\.device=gpu", instead="", reason="GPUs: there are none"),
    Rule(typed=r" --gpus 1", instead="", reason="GPUs: there are none"),
    Rule(
        typed=r"python3\.11 -m venv \.venv && .*",
        instead="ln -s $COPPICE_VENV .venv",
        reason="a package index: the environment that runs this is there",
    ),
    Rule(
        typed=r"eval runs/toy-eval --suite toy --model toy",
        instead="eval runs/toy-eval --suite toy --model toy --limit 2 --images-per-prompt 1",
        reason="time: two pictures",
    ),
)

_CLUSTER = "a cluster, or a cloud: tests/jobs has these on a real Ray"
NOT_RUN = (
    Rule(
        typed=r"^make (test|slow|run)", instead="", reason="it would run this, or its commands do"
    ),
    Rule(typed=r"^ray |RAY_|--address|^coppice status s3://\S+$", instead="", reason=_CLUSTER),
    Rule(typed=r"suite t2i-compbench|--scorer hps", instead="", reason="weights of judges"),
    Rule(
        typed=r"(critic|reader|thinker|teacher)\.toml|serve install|runs/(critic|taught|drawn)",
        instead="",
        reason="a server of a large model: make test-vllm has a real one",
    ),
    Rule(typed=r"my_module|judges\.toml", instead="", reason="files of one's own"),
    Rule(typed=r"tests\.s3|S3_URL", instead="", reason="a real Ceph: make slow starts it"),
    Rule(typed=r"toy\.training\.train", instead="", reason="hours of training"),
)

PROVIDED = {  # in the place of data sets
    "t2i_compbench/color_train.txt": "a red star\na blue circle and a green square\n",
    "t2i_compbench/color_val.txt": "a yellow cross\n",
    "t2i_r1_prompts.jsonl": '{"prompt": "three black squares"}\n',
}

_FIRST = "coppice run examples/toy.jsonl runs/first --config examples/first-run.toml"
BEFORE = {  # what a page takes for granted
    "docs/curate.md": [f"{_FIRST} --shard-rollouts 8"],
}

ENDS = {  # exit codes that are right though they are not 0
    "coppice repair s3://bucket/runs/first --shards 3,7-9": 2,  # nothing of them is damaged
}


def not_run(typed: str) -> Rule | None:
    """Why a command is not run; None: it is."""
    return next((rule for rule in NOT_RUN if re.search(rule.typed, typed)), None)


def replaced(typed: str) -> tuple[str, list[Rule]]:
    """A command as it is run here, and the rules that made it so."""
    used = []
    for rule in REPLACED:
        changed = re.sub(rule.typed, rule.instead, typed)
        if changed != typed:
            used.append(rule)
        typed = changed
    return typed, used
