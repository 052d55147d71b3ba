"""What of a page's commands is replaced by what this machine has, and what is not run, each with
the reason. Nothing else is changed.
"""

import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from tests.docs.shell import cache
from tests.jobs.cluster.serving import stand_in


@dataclass(frozen=True, kw_only=True, slots=True)
class Rule:
    """A part of commands, and what is put there."""

    typed: str  # a pattern
    instead: str
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class NotRun:
    """Commands that are not typed here."""

    typed: str  # a pattern
    reason: str
    unless: str = ""  # this is in the cache


@dataclass(frozen=True, kw_only=True, slots=True)
class Before:
    """What a page takes for granted: typed before the first of its commands that fits."""

    page: str
    commands: tuple[str, ...]
    typed: str = ""  # a pattern


_WEIGHTS = "weights of judges: tiny random ones of the same class"
_GPUS = "GPUs: there are none"
SERVER = "a server of a large model: a stand-in"
_STAYS = "a terminal of its own: it stays, and the next command follows when it is up"

REPLACED = (
    Rule(
        typed=r"python3\.11 -m venv \.venv && .*",
        instead="ln -s $COPPICE_VENV .venv",
        reason="a package index: the environment that runs this is there",
    ),
    Rule(
        typed=r"^make ",
        instead="make --assume-old=.venv/ready ",
        reason="a package index: that environment is not made anew",
    ),
    Rule(
        typed=r"(^make .*\btest$)",
        instead=r"\1 PARALLEL=tests/schemas",
        reason="time: the tests of one folder",
    ),
    Rule(
        typed=r"--model deepseek-ai/Janus-Pro-7B",
        instead="--model tiny --set method.sampling.max_text_tokens=16",
        reason="weights: the bundled random model, and few words",
    ),
    Rule(
        typed=r"^(coppice plan .*) (--model tiny)",
        instead=r"\1 --limit 2 --shard-rollouts 1 \2",
        reason="time: two prompts; and as many shards as a page names",
    ),
    Rule(
        typed=r"^python (examples/sft_janus\.py .* --rank)",
        instead='"$COPPICE_CACHE"/consumers/peft/bin/python \\1',
        reason="peft: the environment of make test-consumers has it",
    ),
    Rule(
        typed=r"deepseek-ai/Janus-Pro-\dB (sets/\S+ \S+)",
        instead=r"--device cpu toy \1 --steps 2",
        reason="weights and GPUs: the bundled toy, for two steps",
    ),
    Rule(typed=r" --set execution\.device=gpu", instead="", reason=_GPUS),
    Rule(typed=r" --gpus 1", instead="", reason=_GPUS),
    Rule(
        typed=r"--suite toy --model toy",
        instead=r"\g<0> --limit 2 --images-per-prompt 1",
        reason="time: two pictures",
    ),
    Rule(
        typed=r"--suite t2i-compbench",
        instead=r"\g<0> --config tiny-judges.toml --images-per-prompt 1",
        reason=f"{_WEIGHTS}; time: a picture a prompt",
    ),
    Rule(typed=r"--scorer hps", instead="--scorer 'hps[model=clip,base=clip]'", reason=_WEIGHTS),
    Rule(typed=r"/models/dino", instead="grounding_dino", reason=_WEIGHTS),
    Rule(typed=r"lmm_yes\[dtype", instead="lmm_yes[model=qwen3_vl,dtype", reason=_WEIGHTS),
    Rule(
        typed=r"train --out DIR$",
        instead="train --out DIR --steps-share 0.0001",
        reason="time: a few steps",
    ),
    Rule(typed=r"^coppice score RUN", instead="coppice score runs/first", reason="a run's name"),
    Rule(
        typed=r"ray start --",
        instead="ray start --node-ip-address=127.0.0.1 --dashboard-agent-listen-port=0 --",
        reason="addresses: on loopback alone, and beside another Ray",
    ),
    Rule(typed=r"HEAD:6379", instead="127.0.0.1:6379", reason="addresses: the head is here"),
    Rule(
        typed=r"ray start .*--block",
        instead=r"until_it_says 'Ray runtime started' \g<0>",
        reason=_STAYS,
    ),
    Rule(
        typed=r"^coppice serve [^i]\w+ --config.*",
        instead=r"until_it_says 'Answering at' \g<0>",
        reason=_STAYS,
    ),
    Rule(typed=r"/tmp/(ceph|ray-2)", instead=r"$RAY_TMPDIR/\1", reason="a folder of its own"),
    Rule(typed=r"/etc/coppice/keys", instead="~/keys", reason="a file of this machine's own"),
    Rule(
        typed=r"^ray job submit --no-wait.*",
        instead=r"\g<0> | tee submitted",
        reason="the job's id: read from what this prints",
    ),
    Rule(
        typed=r"\bJOB$",
        instead=r"$(grep -o 'raysubmit_\\w*' submitted | head -1)",
        reason="the job's id: as it was printed",
    ),
    Rule(
        typed=r"^ray job logs --follow (.*)$",
        instead=r"\g<0>; while ray job status \1 | grep -Eq 'PENDING|RUNNING'; do sleep 1; done",
        reason="time: on a busy machine Ray ends the tail of a log before the job",
    ),
    Rule(
        typed=r'"https://\.\.\."',
        instead="\"'$AWS_ENDPOINT_URL'\"",
        reason="addresses: the S3 that is here",
    ),
    Rule(
        typed=r"jobs run \.\.\.$",
        instead="jobs run s3://bucket/runs/first",
        reason="a run's name",
    ),
)

NOT_RUN = (
    NotRun(typed=r"^RAY_AUTH_MODE=token ray up", reason="a cloud, and an account there"),
    NotRun(
        typed=r"^coppice serve install",
        reason="gigabytes from a package index: make test-vllm installs such a server",
    ),
    NotRun(
        typed=r"^swift sft|-m unirl\.train_sft",
        reason="a GPU and a trainer of its own: make test-consumers takes a step of it on a CPU",
    ),
    NotRun(
        typed=r"sft_janus\.py .*--rank",
        reason="peft, which make test-consumers installs",
        unless="consumers/peft/ready",
    ),
    NotRun(
        typed=r"tests\.s3|S3_URL",
        reason="Ceph's packages, which make slow fetches",
        unless="s3-server/forky",
    ),
)

KEY = "a-key"  # that servers want to see

_RUN = "coppice run examples/toy.jsonl runs/first --config examples/first-run.toml --limit 12"
_SCORE = "coppice score runs/first --scorer toy --scorer thoughts --scorer critiques"
_SCORE += " --scorer tokens --scorer phash --scorer prompt_filter"
_CURATE = "coppice curate runs/first sets/first --recipe twig-50k-toy"
_MODELS = "python -m tests.docs.weights"
_DAMAGE = (
    "python -c 'from pipeline.store.open import open_store; "
    's = open_store("s3://bucket/runs/first"); '
    """[s.put(f"traces/shard-0000{n}.parquet", b"") for n in (3, 7, 8, 9)]'"""
)
_PEFT = "python -c 'from tests.consumers.environments import python_of; python_of(\"peft\")'"
_HEAD = (
    "ray get-auth-token --generate",
    "export RAY_AUTH_MODE=token",
    "ray start --head --port=6379 --num-cpus=2",
)

BEFORE = (
    Before(page="README.md", typed="^coppice repair", commands=(_DAMAGE,)),
    Before(
        page="README.md",
        typed="t2i-compbench",
        commands=(f"{_MODELS} blip clip grounding_dino dpt",),
    ),
    Before(
        page="README.md",
        typed="^ray job submit",
        commands=(*_HEAD, "export RAY_API_SERVER_ADDRESS=http://127.0.0.1:8265"),
    ),
    Before(page="docs/curate.md", commands=(_RUN,)),
    Before(page="docs/endpoints.md", commands=(f"export CRITIC_API_KEY={KEY}",)),
    Before(page="docs/endpoints.md", typed="ray start", commands=_HEAD),
    Before(
        page="docs/gallery.md",
        commands=(_RUN, _RUN.replace("first ", "second ") + " --seed 7", _SCORE, _CURATE),
    ),
    Before(
        page="docs/judges.md",
        commands=(_RUN, f"{_MODELS} blip clip grounding_dino dpt qwen3_vl"),
    ),
    Before(
        page="docs/judges.md",
        typed="--against",
        commands=("cp -r runs/bench runs/other-bench",),
    ),
    Before(page="docs/teacher.md", commands=(f"export JUDGE_API_KEY={KEY}", *_HEAD)),
    Before(page="docs/train.md", commands=(_RUN, _SCORE)),
    Before(page="docs/train.md", typed="--rank", commands=(_PEFT,)),
)

IN_TABLES = (
    Rule(
        typed=r'"/opt/coppice-vllm/venv/bin/vllm", "serve"',
        instead=f'"{sys.executable}", "-S", "{stand_in.__file__}", "serve"',
        reason=SERVER,
    ),
    Rule(typed=r"\bgpus = 1\b", instead="gpus = 0\ncpus = 0", reason=_GPUS),
    Rule(
        typed=r'model = "deepseek-ai/Janus-Pro-7B"',
        instead='model = "tiny"\nsampling.max_text_tokens = 16',
        reason="weights: the bundled random model, and few words",
    ),
)
"""Of the files that pages show."""


def not_run(typed: str) -> NotRun | None:
    """Why a command is not run; None: it is."""
    for rule in NOT_RUN:
        if re.search(rule.typed, typed) and not (rule.unless and (cache() / rule.unless).exists()):
            return rule
    return None


def replaced(typed: str, rules: Sequence[Rule] = REPLACED) -> tuple[str, list[Rule]]:
    """A command, or a file, as it is here, and the rules that made it so."""
    used = []
    for rule in rules:
        changed = re.sub(rule.typed, rule.instead, typed)
        if changed != typed:
            used.append(rule)
        typed = changed
    return typed, used
