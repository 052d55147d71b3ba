"""TRL 1.16.0, which is in the project's own environment: SFT on prompts and completions, DPO on
pairs of thoughts. Pictures are for models that see; the small one here is given rows without.
"""

import tempfile
from importlib.metadata import version
from pathlib import Path

from datasets import load_dataset
from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer

from tests.consumers.model import own_loss, write_model
from tests.consumers.report import Report, given, hand_back


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        model = Path(scratch) / "model"
        write_model(model)
        report = Report(version=version("trl"), ran=[], schema=[], problems=[])
        rows = words_of("sft/exports/trl/train/*.parquet").select(range(1))
        settings = {"output_dir": scratch, "use_cpu": True, "report_to": [], "max_steps": 1}
        settings |= {"logging_steps": 1, "bf16": False, "max_length": None}
        trainer = SFTTrainer(model=str(model), args=SFTConfig(**settings), train_dataset=rows)
        trainer.train()
        report["loss"] = trainer.state.log_history[0]["loss"]
        report["own"] = own_loss(model, rows[0]["prompt"] + rows[0]["completion"])
        report["ran"].append("SFTTrainer, a step on the `trl` export with its defaults")
        pairs = words_of("preference/exports/trl-dpo/train/*.parquet")
        if len(pairs):
            DPOTrainer(model=str(model), args=DPOConfig(**settings), train_dataset=pairs).train()
            report["ran"].append(
                f"DPOTrainer, a step on {len(pairs)} pairs of the `trl-dpo` export"
            )
        hand_back(report)


def words_of(files: str):
    """The rows of an export that have no picture, without the column of pictures."""
    paths = sorted(str(path) for path in given().glob(files))
    rows = load_dataset("parquet", data_files=paths, split="train")
    return rows.filter(lambda row: not row["images"]).remove_columns("images")


if __name__ == "__main__":
    main()
