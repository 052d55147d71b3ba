"""WebDataset: a tar of samples, each a JSON file with its pictures beside it.

Samples with a picture and those without stand in tars of their own: the loader of `datasets` takes
the first sample for all of them, and WebDataset's own does not mind.
"""

import json

from pipeline.sets.exports.conversations import text_of
from pipeline.sets.exports.form import (
    IMAGES,
    NAMES,
    STRING,
    Export,
    ExportRow,
    Reason,
    Rows,
    Source,
    lineage_of,
    names_of,
    png_cells,
)
from schemas.recipes import SetKind


def _sample(source: Source) -> Rows:
    """What `part_files.TarStream` writes: a JSON file, and a file a picture."""
    if isinstance(row := text_of(source), Reason):
        return row
    note = json.dumps({"messages": row["messages"], **lineage_of(row)}, sort_keys=True)
    return [names_of(row) | {"__key__": row["id"], "json": note, "png": png_cells(row["images"])}]


def _by_pictures(row: ExportRow) -> str:
    return "pictured" if row["png"] else "text"


WEBDATASET = Export(
    version=2,
    consumer="WebDataset 1.0.2 and datasets 5.2.0",
    kinds=frozenset({SetKind.SFT}),
    rows_of=_sample,
    columns={**NAMES, "__key__": STRING, "json": STRING, "png": IMAGES},
    container="tar",
    folder_of=_by_pictures,
)
