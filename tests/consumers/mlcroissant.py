"""mlcroissant 1.1.1: `croissant.json` of every set is valid, and its records are read."""

from importlib.metadata import version

import mlcroissant

from tests.consumers.report import Report, given, hand_back

_RECOMMENDED = 2  # properties that a set cannot know: who cites it how, and when it is published


def main() -> None:
    report = Report(version=version("mlcroissant"), ran=[], schema=[], problems=[])
    for kind in ("sft", "preference", "grpo"):
        dataset = mlcroissant.Dataset(jsonld=given() / kind / "croissant.json")
        issues = dataset.metadata.ctx.issues
        if issues.errors or len(issues.warnings) > _RECOMMENDED:
            report["problems"].append(issues.report())
        for records in dataset.metadata.record_sets:
            row = next(iter(dataset.records(records.uuid)))
            if f"{records.uuid}/run_id" not in row:
                report["problems"].append(f"{kind}: {records.uuid} has no run_id")
        report["ran"].append(f"validation and records of {kind}: {dataset.metadata.name!r}")
    hand_back(report)


if __name__ == "__main__":
    main()
