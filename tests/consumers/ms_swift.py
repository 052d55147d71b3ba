"""ms-swift 4.6.0: its own loader reads the export, with pictures and without; its SFT takes a step
on a row without.
"""

import json
import tempfile
from importlib.metadata import version
from pathlib import Path

import datasets
from swift import SftArguments, sft_main
from swift.dataset import load_dataset

from pipeline.engine.tokenizer import SPECIAL_NAMES
from tests.consumers.model import loss_after, write_model
from tests.consumers.report import Report, given, hand_back


def main() -> None:
    report = Report(version=version("ms-swift"), ran=[], schema=[], problems=[])
    files = sorted(map(str, (given() / "sft/exports/ms-swift/train").glob("*.parquet")))
    rows, _ = load_dataset(files)
    for row in rows:
        said = "".join(turn["content"] for turn in row["messages"])
        if said.count("<image>") != len(row.get("images") or []):
            report["problems"].append(f"tags and pictures differ: {said[:80]!r}")
    report["ran"].append(f"load_dataset on {len(rows)} rows, with and without pictures")

    with tempfile.TemporaryDirectory() as scratch:
        model, words = Path(scratch) / "model", Path(scratch) / "words.parquet"
        write_model(model)
        plain = datasets.load_dataset("parquet", data_files=files, split="train")
        first = plain.filter(lambda row: not row["images"]).select(range(1))
        first.remove_columns("images").to_parquet(words)
        arguments = SftArguments(
            model=str(model),
            model_type="llama",
            template="dummy",
            tuner_type="full",
            torch_dtype="float32",
            dataset=[str(words)],
            output_dir=f"{scratch}/out",
            max_steps=1,
            logging_steps=1,
            report_to=[],
            per_device_train_batch_size=1,
            gradient_checkpointing=False,
            split_dataset_ratio=0.0,
        )
        sft_main(arguments)
        (log,) = Path(scratch).glob("out/**/logging.jsonl")
        lines = [json.loads(line) for line in log.read_text().splitlines()]
        report["loss"] = next(line["loss"] for line in lines if "loss" in line)
        # Its `dummy` template has no roles. With `template_backend=jinja` it learns the question,
        # too, unless the chat template marks what the assistant says.
        question, answer = (turn["content"] for turn in first[0]["messages"])
        report["own"] = loss_after(model, question, answer + SPECIAL_NAMES["eos"])
        report["ran"].append("sft_main, a step, with its template `dummy`")
    hand_back(report)


if __name__ == "__main__":
    main()
