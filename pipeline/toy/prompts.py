"""Write prompts of the toy world for `coppice run`: `python -m pipeline.toy.prompts`.

JSON lines, a prompt each, with its spec as metadata, so that the toy scorer can judge what is
drawn. They are held out: each has a combination that the toy Janus was never shown. With
`--training` none of them has.
"""

import argparse
import json
import sys
from collections.abc import Callable, Iterator

import numpy as np

from pipeline.toy.scenes import (
    NUM_WORDINGS,
    Spec,
    prompt_of,
    sample_held_out_spec,
    sample_spec,
    sample_training_scene,
)
from schemas.json_values import JsonObject
from schemas.specs import ORIGIN_KEY

_ORIGIN = {"name": "the toy world of coppice", "licence": "Apache-2.0"}


def held_out_prompts(number: int, *, seed: int) -> Iterator[JsonObject]:
    """So many different prompts, as rows of a prompt file."""
    return _prompts(sample_held_out_spec, number, seed)


def training_prompts(number: int, *, seed: int) -> Iterator[JsonObject]:
    """The same of combinations that the toy Janus was shown."""
    return _prompts(lambda rng: sample_spec(rng, sample_training_scene(rng)), number, seed)


def _prompts(
    sample: Callable[[np.random.Generator], Spec], number: int, seed: int
) -> Iterator[JsonObject]:
    rng = np.random.default_rng(seed)
    seen: set[str] = set()
    while len(seen) < number:
        spec = sample(rng)
        prompt = prompt_of(spec, int(rng.integers(NUM_WORDINGS)))
        if prompt not in seen:
            seen.add(prompt)
            yield {"prompt": prompt, "spec": spec.to_json(), ORIGIN_KEY: dict(_ORIGIN)}


def main() -> None:
    """Write to standard output."""
    parser = argparse.ArgumentParser(description="Write prompts of the toy world as JSON lines.")
    parser.add_argument("--number", type=int, default=32)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--training", action="store_true", help="not held out")
    options = parser.parse_args()
    make = training_prompts if options.training else held_out_prompts
    for row in make(options.number, seed=options.seed):
        sys.stdout.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
