"""What `coppice verify` does, and what it prints. Findings quote what stands in objects."""

from dataclasses import asdict

from rich.console import Console

from jobs.commands.selection import as_shards
from jobs.commands.terminal import as_typed, counted, printable, say
from pipeline.store.open import open_store
from pipeline.store.patient import patient_store
from pipeline.store.plans import read_manifest
from pipeline.store.shard_check import Finding
from pipeline.store.verify import Verification
from schemas.errors import ExitCode


def verify_run(url: str, console: Console, *, is_deep: bool, as_json: bool) -> ExitCode:
    """Print what is wrong with a run. Returns DAMAGED if anything is."""
    store = open_store(url)
    manifest = read_manifest(store)
    verification = Verification(patient_store(store, manifest), manifest, is_deep=is_deep)
    findings = []
    for finding in verification.findings():
        findings.append(finding)
        if not as_json:
            say(console, describe_finding(finding))
    code = ExitCode.DAMAGED if findings else ExitCode.COMPLETE
    if as_json:
        console.print_json(data=_summary(verification, findings, code))
    else:
        say(console, _describe_counts(verification))
        say(console, _describe_end(url, verification, findings))
    return code


def describe_finding(finding: Finding) -> str:
    """A finding as four lines."""
    return "\n".join(
        [
            printable(finding.key),
            f"  found     {printable(finding.found)}",
            f"  expected  {printable(finding.expected)}",
            f"  to do     {printable(finding.advice)}",
        ]
    )


def _describe_counts(seen: Verification) -> str:
    total = seen.num_ok + seen.num_dead + seen.num_missing
    sign = "=" if total == seen.num_planned == seen.manifest.num_rollouts else "is not"
    return (
        f"{seen.manifest.num_rollouts:,} planned {sign} {seen.num_ok:,} ok + "
        f"{seen.num_dead:,} dead + {seen.num_missing:,} missing; {seen.num_committed:,} of "
        f"{counted(seen.manifest.num_shards, 'shard')} committed."
    )


def _describe_end(url: str, seen: Verification, findings: list[Finding]) -> str:
    read = "every page was read" if seen.is_deep else "keys and counts were read"
    if not findings:
        return f"Whole: {read}."
    end = f"Damaged: {counted(len(findings), 'finding')}; {read}."
    repairable = {f.shard for f in findings if f.can_repair and f.shard is not None}
    if repairable:
        end += f"\nNext: coppice repair {as_typed(url)} --shards {as_shards(repairable)}"
    return end


def _summary(seen: Verification, findings: list[Finding], code: ExitCode) -> dict[str, object]:
    return {
        "run_id": seen.manifest.run_id,
        "is_deep": seen.is_deep,
        "num_shards": seen.manifest.num_shards,
        "num_committed": seen.num_committed,
        "num_planned": seen.num_planned,
        "num_ok": seen.num_ok,
        "num_dead": seen.num_dead,
        "num_missing": seen.num_missing,
        "findings": [asdict(finding) for finding in findings],
        "exit_code": code.value,
    }
