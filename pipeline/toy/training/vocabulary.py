"""The toy Janus's tokenizer: byte-level, with one token for every word of its own world.

Any other text is still encoded, as bytes; the special tokens are Janus's.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from pipeline.engine.tokenizer import SPECIAL_NAMES
from pipeline.toy.scenes import NUM_WORDINGS, prompt_of, sample_spec, sample_training_scene
from pipeline.toy.teacher import Mistakes
from pipeline.toy.training.lessons import settings_for, teach
from pipeline.twig.requests import Text, TextAnswer
from schemas.config import Program

_NUM_ROLLOUTS = 400  # enough for every word to occur
_LARGEST = 1024  # more than the words of the toy world need


def write_tokenizer(folder: Path, *, seed: int) -> None:
    """Fit a tokenizer to the toy's questions and answers; write `tokenizer.json`."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=_LARGEST,
        min_frequency=2,
        special_tokens=list(SPECIAL_NAMES.values()),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_texts(np.random.default_rng(seed)), trainer)
    tokenizer.save(str(folder / "tokenizer.json"))


def special_ids(folder: Path) -> dict[str, int]:
    """The ids of Janus's special tokens by their roles, and the size under `vocab_size`."""
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    vocabulary = tokenizer.get_vocab()
    ids = {role: vocabulary[name] for role, name in SPECIAL_NAMES.items()}
    return ids | {"vocab_size": len(vocabulary)}


def _texts(rng: np.random.Generator) -> Iterator[str]:
    """All that is asked and answered, as the renderer cuts it."""
    for index in range(_NUM_ROLLOUTS):
        program = Program.THINK_AFTER if index % 4 == 0 else Program.THINK_WHILE
        scene = sample_training_scene(rng)
        prompt = prompt_of(sample_spec(rng, scene), index % NUM_WORDINGS)
        mistakes = Mistakes(thought=0.1, drawing=0.6)
        for lesson in teach(scene, prompt, settings_for(program), rng, mistakes):
            if isinstance(lesson.request, Text) and isinstance(lesson.answer, TextAnswer):
                yield from (f": {message.text}\n\n" for message in lesson.request.messages)
                yield lesson.answer.text
            else:
                yield "User: \n\nAssistant:"
