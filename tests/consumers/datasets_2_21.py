"""datasets 2.21.0, which VeOmni pins: it reads the `veomni` export, as lists of dicts and bytes.

VeOmni's SeedOmni V2 is on no package index; the rules of its preprocessors are held against the
rows: `sharegpt4v_sft` and `seed_edit_p23_multi_turn` (branch omniv2, commit 5ff919a).
"""

import io
from importlib.metadata import version

from datasets import load_dataset
from PIL import Image

from tests.consumers.report import Report, given, hand_back


def main() -> None:
    report = Report(version=version("datasets"), ran=[], problems=[])
    files = str(given() / "sft/exports/veomni/train/*.parquet")
    rows = list(load_dataset("parquet", data_files=files, split="train"))
    for row in rows:
        speakers = [turn["from"] for turn in row["conversations"]]
        said = "".join(turn["value"] for turn in row["conversations"])
        pictures = [Image.open(io.BytesIO(data)) for data in row["images"]]
        is_drawing = row["source_name"] == "seed_edit_p23_multi_turn"
        if speakers != ["human", "gpt"] or said.count("<image>") != len(pictures):
            report["problems"].append(f"{row['id']}: {speakers}, {len(pictures)} pictures")
        if is_drawing != (row["conversations"][1]["value"] == "<image>"):
            report["problems"].append(f"{row['id']}: {row['source_name']} of other turns")
    names = sorted({row["source_name"] for row in rows})
    report["ran"].append(f"load_dataset on {len(rows)} rows ({', '.join(names)})")
    report["schema"] = ["VeOmni's own loader: it is on no package index"]
    hand_back(report)


if __name__ == "__main__":
    main()
