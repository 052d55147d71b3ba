"""LLaMA-Factory 0.9.5: its own converter reads the export as its `dataset_info.json` says, its own
SFT workflow takes a step on rows without pictures.
"""

import json
import os
import sys
import tempfile
from importlib.machinery import ModuleSpec
from importlib.metadata import version
from pathlib import Path
from types import ModuleType

from datasets import load_dataset

# It imports torchaudio whatever it reads, and the wheels of that want CUDA: there is no sound here.
sys.modules["torchaudio"] = ModuleType("torchaudio")
sys.modules["torchaudio"].__spec__ = ModuleSpec("torchaudio", None)
os.environ["DISABLE_VERSION_CHECK"] = "1"

from llamafactory.data.converter import align_dataset
from llamafactory.data.parser import get_dataset_list
from llamafactory.hparams import get_train_args
from llamafactory.train.tuner import run_exp

from tests.consumers.model import own_loss, write_model
from tests.consumers.report import Report, given, hand_back


def main() -> None:
    report = Report(version=version("llamafactory"), ran=[], schema=[], problems=[])
    folder = given() / "sft/exports/llama-factory"
    (name,) = json.loads((folder / "dataset_info.json").read_text())
    with tempfile.TemporaryDirectory() as scratch:
        model, words = Path(scratch) / "model", Path(scratch) / "words"
        write_model(model)
        arguments = {
            "model_name_or_path": str(model),
            "stage": "sft",
            "do_train": True,
            "finetuning_type": "full",
            "dataset_dir": str(folder),
            "dataset": name,
            "output_dir": f"{scratch}/out",
            "report_to": "none",
            "max_steps": 1,
            "logging_steps": 1,
            "per_device_train_batch_size": 1,
            "overwrite_cache": True,
            "use_cpu": True,
        }
        _, data_args, training_args, *_ = get_train_args(arguments)
        (attributes,) = get_dataset_list([name], str(folder))
        files = str(folder / "train" / "*.parquet")
        rows = load_dataset("parquet", data_files=files, split="train")
        aligned = align_dataset(rows, attributes, data_args, training_args)
        for row in aligned:
            said = "".join(turn["content"] for turn in row["_prompt"] + row["_response"])
            if said.count("<image>") != len(row["_images"] or []):
                report["problems"].append(f"tags and pictures differ: {said[:80]!r}")
        report["ran"].append(f"align_dataset on {len(aligned)} rows, with and without pictures")

        first = rows.filter(lambda row: not row["images"]).select(range(1))
        words.mkdir()
        first.remove_columns("images").to_parquet(words / "first.parquet")
        info = json.loads((folder / "dataset_info.json").read_text())[name]
        info["columns"].pop("images")
        info["file_name"] = "first.parquet"
        (words / "dataset_info.json").write_text(json.dumps({name: info}))
        run_exp({**arguments, "dataset_dir": str(words)})
        log = (Path(scratch) / "out/trainer_state.json").read_text()
        report["loss"] = json.loads(log)["log_history"][0]["loss"]
        report["own"] = own_loss(model, first[0]["messages"])
        report["ran"].append("its SFT workflow, a step, with the tokenizer's chat template")
    hand_back(report)


if __name__ == "__main__":
    main()
