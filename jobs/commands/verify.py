"""What `coppice verify` does, and what it prints. Findings quote what stands in objects."""

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict

from jobs.commands.live.line import Fact, Progress
from jobs.commands.shard_lists import as_shards
from jobs.commands.terminal import ProgressLine, Terminal, as_typed, counted
from pipeline.sets.whole import SetCheck, is_set
from pipeline.store.layout import PLAN
from pipeline.store.objects import Store
from pipeline.store.open import open_store
from pipeline.store.patient import patient_store
from pipeline.store.plans import read_manifest
from pipeline.store.shard_check import Finding
from pipeline.store.verify import Verification
from schemas.errors import ExitCode
from schemas.json_values import JsonObject

_LOOK_SECONDS = 0.5


def verify_run(url: str, terminal: Terminal, *, is_deep: bool, as_json: bool) -> ExitCode:
    """Print what is wrong with a run, or with a set. Returns DAMAGED if anything is."""
    store = open_store(url)
    if is_set(store):
        return _verify_set(store, terminal, as_json=as_json)
    manifest = read_manifest(store)
    verification = Verification(patient_store(store, manifest), manifest, is_deep=is_deep)
    with ExitStack() as stack:
        if not as_json:
            stack.enter_context(_shown(verification, terminal))
        findings = []
        for finding in verification.findings():
            findings.append(finding)
            if not as_json:
                terminal.say(*describe_finding(finding))
    code = ExitCode.DAMAGED if findings else ExitCode.COMPLETE
    if as_json:
        terminal.say_json(_summary(verification, findings, code))
    else:
        terminal.say(_describe_counts(verification))
        terminal.say(*_describe_end(url, verification, findings))
    return code


@contextmanager
def _shown(verification: Verification, terminal: Terminal) -> Iterator[None]:
    """Show how far a verification is while it goes on, from a thread: findings are few."""
    is_over = threading.Event()
    num_shards = verification.manifest.num_shards

    def show(line: ProgressLine) -> None:
        while not is_over.wait(_LOOK_SECONDS):
            line.show(
                Progress(
                    noun="shards read",
                    num_done=verification.num_seen,
                    num_all=num_shards,
                    facts=[Fact(text=f"{verification.num_ok + verification.num_dead:,} traces")],
                )
            )

    with terminal.progress("reading the run", is_logged=False) as line:
        thread = threading.Thread(target=show, args=(line,), name="progress", daemon=True)
        thread.start()
        try:
            yield
        finally:
            is_over.set()
            thread.join()


def _verify_set(store: Store, terminal: Terminal, *, as_json: bool) -> ExitCode:
    check = SetCheck(store)
    findings = []
    for finding in check.findings():
        findings.append(finding)
        if not as_json:
            terminal.say(*describe_finding(finding))
    code = ExitCode.DAMAGED if findings else ExitCode.COMPLETE
    if as_json:
        terminal.say_json(
            {
                "set": check.manifest.version,
                "num_files": check.num_files,
                "num_without_digest": check.num_without_digest,
                "findings": [asdict(finding) for finding in findings],
                "exit_code": code.value,
            }
        )
        return code
    if num_without := check.num_without_digest:
        terminal.say(
            f"no digest: {counted(num_without, 'file')}, written before digests were kept."
        )
    end = f"Damaged: {counted(len(findings), 'finding')}" if findings else "Whole"
    terminal.say(f"{end}: set {check.manifest.version}, {counted(check.num_files, 'file')} read.")
    return code


def describe_finding(finding: Finding) -> list[str]:
    """A finding as four lines."""
    return [
        finding.key,
        f"  found     {finding.found}",
        f"  expected  {finding.expected}",
        f"  to do     {finding.advice}",
    ]


def _describe_counts(verification: Verification) -> str:
    total = verification.num_ok + verification.num_dead + verification.num_missing
    sign = (
        "=" if total == verification.num_planned == verification.manifest.num_rollouts else "is not"
    )
    return (
        f"{verification.manifest.num_rollouts:,} planned {sign} {verification.num_ok:,} ok + "
        f"{verification.num_dead:,} dead + {verification.num_missing:,} missing; "
        f"{verification.num_committed:,} of "
        f"{counted(verification.manifest.num_shards, 'shard')} committed."
    )


def _describe_end(url: str, verification: Verification, findings: list[Finding]) -> Iterator[str]:
    read = "every page was read" if verification.is_deep else "keys and counts were read"
    if num_without := verification.num_without_digest:
        yield f"no digest: {counted(num_without, 'object')}, written before digests were kept."
    if not findings:
        yield f"Whole: {read}."
        return
    yield f"Damaged: {counted(len(findings), 'finding')}; {read}."
    shards = {finding.shard for finding in findings if finding.can_repair}
    others = {finding.shard for finding in findings if not finding.can_repair}
    if repairable := [shard for shard in shards - others if shard is not None]:
        yield f"Next: coppice repair {as_typed(url)} --shards {as_shards(repairable)}"
    if any(
        finding.key.startswith(f"{PLAN}/") and finding.shard is not None for finding in findings
    ):
        yield f"Next: coppice repair {as_typed(url)} --plan"


def _summary(verification: Verification, findings: list[Finding], code: ExitCode) -> JsonObject:
    return {
        "run_id": verification.manifest.run_id,
        "is_deep": verification.is_deep,
        "num_shards": verification.manifest.num_shards,
        "num_committed": verification.num_committed,
        "num_planned": verification.num_planned,
        "num_ok": verification.num_ok,
        "num_dead": verification.num_dead,
        "num_missing": verification.num_missing,
        "num_without_digest": verification.num_without_digest,
        "findings": [asdict(finding) for finding in findings],
        "exit_code": code.value,
    }
