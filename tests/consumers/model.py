"""A very small language model with a chat template, and our own loss of an answer under it.

What a trainer of words says of its first step is held against it: the mean cross-entropy of the
answer's tokens and of the end of the sentence, and of nothing before them.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from pipeline.engine.tiny import tiny_checkpoint
from pipeline.engine.tokenizer import SPECIAL_NAMES

_TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}<|User|>: {{ m.content }}\n\n"
    "{% elif m.role == 'assistant' %}<|Assistant|>:{{ m.content }}{{ eos_token }}"
    "{% else %}{{ m.content }}\n\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|Assistant|>:{% endif %}"
)


def write_model(folder: Path) -> None:
    """A checkpoint of random weights, the same every time."""
    names = {f"{role}_token": SPECIAL_NAMES[role] for role in ("bos", "eos", "pad")}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=str(tiny_checkpoint() / "tokenizer.json"), **names
    )
    tokenizer.chat_template = _TEMPLATE
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def own_loss(folder: Path, messages: Sequence[Any]) -> float:
    """Our loss of the last message, after all others."""
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    asked, said = (
        tokenizer.apply_chat_template(list(turns), tokenize=False, add_generation_prompt=is_open)
        for turns, is_open in ((messages[:-1], True), (messages, False))
    )
    return loss_after(folder, asked, said[len(asked) :])


def loss_after(folder: Path, asked: str, answer: str) -> float:
    """The loss of an answer's tokens after a text."""
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    model = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32)
    prompt, learned = (
        tokenizer(text, add_special_tokens=False)["input_ids"] for text in (asked, answer)
    )
    whole, labels = prompt + learned, [-100] * len(prompt) + learned
    with torch.no_grad():
        loss = model(input_ids=torch.tensor([whole]), labels=torch.tensor([labels])).loss
    return float(loss)
