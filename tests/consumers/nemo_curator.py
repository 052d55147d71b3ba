"""NeMo Curator 1.4.0: its own reader of interleaved Parquet takes the export."""

from importlib.metadata import version

import pyarrow.parquet as pq
from nemo_curator.stages.interleaved.io.readers.parquet import InterleavedParquetReaderStage
from nemo_curator.tasks import FileGroupTask
from nemo_curator.tasks.interleaved import INTERLEAVED_SCHEMA

from tests.consumers.report import Report, given, hand_back


def main() -> None:
    report = Report(version=version("nemo-curator"), ran=[], schema=[], problems=[])
    paths = sorted(map(str, (given() / "sft/exports/nemo-curator/train").glob("*.parquet")))
    schema = pq.read_schema(paths[0])
    for field in INTERLEAVED_SCHEMA:
        if field.name not in schema.names or schema.field(field.name).type != field.type:
            report["problems"].append(f"{field.name} is not {field.type}")
    task = FileGroupTask(dataset_name="coppice", data=paths)
    batch = InterleavedParquetReaderStage().process(task)
    rows = batch.to_pandas()
    report["ran"].append(
        f"its reader on {len(rows)} parts of {rows['sample_id'].nunique()} samples"
    )
    hand_back(report)


if __name__ == "__main__":
    main()
