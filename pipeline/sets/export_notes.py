"""What a set's manifest, funnel and card say of its exports."""

from collections import Counter
from collections.abc import Iterator, Sequence

from pipeline.sets.exports import EXPORTS
from schemas import __version__
from schemas.json_values import JsonObject
from schemas.sets import ExportNote, SetManifest, UnitFiles


def export_notes(names: Sequence[str], units: Sequence[UnitFiles]) -> dict[str, ExportNote]:
    """What these exports are, and what they left out in all units."""
    return {
        name: ExportNote(
            version=EXPORTS[name].version,
            consumer=EXPORTS[name].consumer,
            coppice=__version__,
            left_out=dict(
                sorted(sum((Counter(unit.left_out.get(name)) for unit in units), Counter()).items())
            ),
        )
        for name in names
    }


def num_rows(manifest: SetManifest, name: str) -> int:
    """How many rows an export has, in all splits, as its consumer counts them."""
    return sum(
        stream.num_rows
        for key, stream in manifest.files.items()
        if key.startswith(f"exports/{name}/")
    )


def export_counts(manifest: SetManifest) -> JsonObject:
    """How many rows each export has, and how many it left out for what, for the funnel."""
    return {
        name: {"rows": num_rows(manifest, name), "left_out": dict(note.left_out)}
        for name, note in manifest.exports.items()
    }


def export_lines(manifest: SetManifest) -> Iterator[str]:
    """A line an export, for people."""
    for name, note in manifest.exports.items():
        left_out = ", ".join(f"{reason} {num:,}" for reason, num in note.left_out.items())
        yield (f"Export {name}: {num_rows(manifest, name):,} rows; left out: {left_out or 'none'}.")
