"""Every kind of damage under every command: each says what is wrong, and what it says to do, done
to the letter, loses and doubles nothing.
"""

import io
import random
from collections.abc import Iterator
from contextlib import suppress
from itertools import count, product
from pathlib import Path

import pyarrow.parquet as pq
import pytest

import coppice
from schemas.errors import DamagedObject
from tests.damage import DAMAGE, FIRST, PLAN, RUN, SET, Site, is_told, make_site, walk

LOOKS = (
    *(f"status {RUN}", f"status {RUN} --json", f"show {RUN}", f"show {RUN} --sheet sheet.png"),
    *(f"verify {RUN}", f"verify {RUN} --deep", f"verify {RUN} --json", f"verify {SET}"),
    *(f"rerun {RUN} --dry-run", f"gc {RUN} --dry-run", f"show {RUN} --dead", f"view {RUN}"),
    *(f"repair {RUN} --plan", f"repair {RUN} --run"),
)
CHANGES = (
    *(f"run {RUN}", PLAN, PLAN.replace("plan ", "run ", 1), f"plan --extend {RUN} --rollouts 3"),
    *(f"rerun {RUN}", f"repair {RUN} --shards 0", f"repair {RUN} --shards 1"),
    *(f"repair {RUN} --plan --apply", f"repair {RUN} --run --apply"),
    *(f"gc {RUN} --settle-seconds 0", f"score {RUN} --scorer tokens"),
    f"curate {RUN} another-set --recipe mine.toml",
)
SET_FILE = f"../{SET}/sft/draw_1/*-00000.parquet"
CUT = (  # what `make test` has time for
    *("a plan file is another shard's", "a base is cut", "a base with a supplement is gone"),
    *("statistics have another bit", "a base stands beyond the plan", "all plans are gone"),
)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Site:
    return make_site(tmp_path_factory.mktemp("whole") / "site")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    base = tmp_path_factory.mktemp("sites")
    return (base / str(number) for number in count())


def damaged(whole: Site, folder: Path, kind: str) -> Site:
    site = whole.copied(folder)
    DAMAGE[kind](site)
    return site


@pytest.mark.parametrize("kind", CUT)
def test_advice_on_damage_loses_and_doubles_nothing(
    whole: Site, folders: Iterator[Path], kind: str
):
    first = FIRST[CUT.index(kind) % len(FIRST)]

    walk(damaged(whole, next(folders), kind), first)


@pytest.mark.slow
@pytest.mark.parametrize("kind", DAMAGE)
def test_all_advice_on_damage_loses_and_doubles_nothing(
    whole: Site, folders: Iterator[Path], kind: str
):
    for first in FIRST:
        walk(damaged(whole, next(folders), kind), first)


@pytest.mark.parametrize("kind", CUT)
def test_no_command_ends_with_a_traceback(whole: Site, folders: Iterator[Path], kind: str):
    site = damaged(whole, next(folders), kind)
    turn = CUT.index(kind)

    for command in (LOOKS[turn % len(LOOKS)], CHANGES[turn % len(CHANGES)]):
        assert is_told(site.coppice(command)), command


@pytest.mark.slow
@pytest.mark.parametrize("kind", DAMAGE)
def test_no_command_at_all_ends_with_a_traceback(whole: Site, folders: Iterator[Path], kind: str):
    site = damaged(whole, next(folders), kind)
    kept = site.ok_keys() | site.keys_set_aside()
    for command in LOOKS:
        assert is_told(site.coppice(command)), command
    for command in CHANGES:
        changed = site.copied(next(folders))
        assert is_told(changed.coppice(command)), command
        assert not changed.doubled(), command
        assert kept <= changed.ok_keys() | changed.keys_set_aside(), command


@pytest.mark.parametrize(
    ("kind", "first", "codes"),
    [
        ("a plan file is gone", f"verify {RUN}", {9}),
        ("a plan file is another shard's", f"status {RUN}", {9}),
        ("a plan file is another shard's", f"repair {RUN} --shards 1", {2}),
        ("a plan file is cut", f"show {RUN}", {0}),
        ("a base is cut", f"status {RUN}", {9}),
        ("a base is cut", f"show {RUN}", {9}),
        ("a base is cut", f"show {RUN} --dead", {9}),
        ("a base has another bit", f"show {RUN} --sheet sheet.png --sort score", {9}),
        ("a base is cut", f"view {RUN} --where 'rollout_index > 9'", {9}),
        ("a base is cut", f"rerun {RUN} --dry-run", {9}),
        ("a base is another shard's", f"status {RUN}", {9}),
        ("a base stands beyond the plan", f"status {RUN}", {9}),
        ("statistics have another bit", f"verify {RUN} --deep", {9}),
        ("run.json is gone", PLAN, {2}),
        ("run.json is gone", f"run {RUN}", {9}),
        ("an extension is gone", f"plan --extend {RUN} --rollouts 2", {2}),
        ("digests are gone", f"verify {RUN} --deep", {0}),
        ("a file of a set is cut", f"verify {SET}", {9}),
    ],
)
def test_damage_has_its_exit_code(
    whole: Site, folders: Iterator[Path], kind: str, first: str, codes: set[int]
):
    answer = damaged(whole, next(folders), kind).coppice(first)

    assert answer.code in codes, answer.text
    assert "Complete" not in answer.text


@pytest.mark.parametrize("kind", ["a base is cut", "a base has another bit"])
def test_what_can_be_read_stands_in_the_gallery(whole: Site, folders: Iterator[Path], kind: str):
    site = damaged(whole, next(folders), kind)
    answer = site.coppice(f"view {RUN}")

    assert answer.code == 9
    assert "9 traces" in answer.text
    assert "shard-00001.parquet" in answer.text
    assert (site.folder / RUN / "view/index.html").is_file()
    assert "1 damaged shard is not shown" in site.path("view/*/view.js").read_text()
    with pytest.raises(DamagedObject):
        len(coppice.open(str(site.folder / RUN)).traces())


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("traces/shard-00001.parquet", f"view {RUN}"),
        ("scores/thoughts@1/shard-00002.parquet", f"view {RUN}"),
        ("scores/thoughts@1/shard-00002.parquet", f"show {RUN} --where 'rollout_index >= 0'"),
        ("scores/thoughts@1/shard-00002.parquet", f"verify {RUN} --deep"),
        ("traces/shard-00001.parquet", f"view {RUN} page --beside {RUN}"),
        ("traces/shard-00001.parquet", f"curate {RUN} other --recipe mine.toml"),
        ("plan/0001-*/shard-00001.parquet", f"run {RUN}"),
        (SET_FILE, f"export {SET} --export trl"),
        (SET_FILE, f"verify {SET}"),
    ],
)
def test_what_only_a_checksum_tells_of_is_told(
    whole: Site, folders: Iterator[Path], name: str, command: str
):
    site = whole.copied(next(folders))
    say_otherwise(site.path(name))

    answer = site.coppice(command)

    assert answer.code == 9, answer.text
    assert site.path(name).name in answer.text


@pytest.mark.parametrize(
    ("name", "body"),
    [
        *product(["manifest.json", "funnel.json"], [b"{", b"[]", b"\xff", b"{} {"]),
        *product(["README.md"], [b"\xff", None]),
        ("funnel.json", None),
    ],
)
def test_an_export_of_a_set_whose_notes_are_damaged_begins_nothing(
    whole: Site, folders: Iterator[Path], name: str, body: bytes | None
):
    site = whole.copied(next(folders))
    path = site.folder / SET / name
    path.unlink() if body is None else path.write_bytes(body)

    answer = site.coppice(f"export {SET} --export trl")

    assert answer.code == 9, answer.text
    assert name in answer.text
    assert not (site.folder / SET / "exports").exists()


def test_what_only_a_checksum_tells_of_is_raised_in_python(whole: Site, folders: Iterator[Path]):
    site = whole.copied(next(folders))
    file = site.path(SET_FILE)
    say_otherwise(file)
    say_otherwise(site.path("traces/shard-00001.parquet"))
    run, of_set = (coppice.open(str(site.folder / name)) for name in (RUN, SET))

    with pytest.raises(DamagedObject, match="shard-00001"):
        [trace.row for trace in run.traces()]
    with pytest.raises(DamagedObject, match=file.name):
        of_set.to_arrow(f"sft/draw_1/{file.name.partition('-')[0]}")


def say_otherwise(path: Path) -> None:
    """Flip a bit of which only a page's checksum tells: other readers take another value."""
    body, chance = path.read_bytes(), random.Random(1)
    rows = pq.read_table(io.BytesIO(body)).to_pylist()
    for _ in range(20_000):
        at, bit = chance.randrange(len(body)), 1 << chance.randrange(8)
        flipped = body[:at] + bytes([body[at] ^ bit]) + body[at + 1 :]
        with suppress(Exception):  # whatever readers say to damage
            if pq.read_table(io.BytesIO(flipped), use_threads=False).to_pylist() != rows:
                path.write_bytes(flipped)
                return
    raise AssertionError(f"no bit of {path} is told of by checksums alone")


@pytest.mark.parametrize(
    "command",
    [
        *(f"plan prompts.txt {SET} --backend fake", f"run prompts.txt {SET} --backend fake"),
        *(f"status {SET}", f"show {SET}", f"score {SET} --scorer tokens", f"rerun {SET}"),
        f"curate {SET} other --recipe mine.toml",
    ],
)
def test_the_folder_of_a_set_is_no_place_for_a_run(
    whole: Site, folders: Iterator[Path], command: str
):
    site = whole.copied(next(folders))
    before = sorted(site.folder.rglob("*"))
    answer = site.coppice(command)

    assert answer.code == 2
    assert f"{site.folder / SET} holds a training set" in answer.text
    assert sorted(site.folder.rglob("*")) == before


def test_a_lost_plan_file_costs_its_own_shard_alone(whole: Site, folders: Iterator[Path]):
    site = whole.copied(next(folders))
    for name in (
        "traces/shard-00002.parquet",
        "traces/shard-00003.parquet",
        "plan/0002-*/shard-00002.parquet",
    ):
        site.path(name).unlink()

    answer = site.coppice(f"run {RUN}")

    assert answer.code == 3
    assert "shard-00002.parquet: found nothing" in answer.text
    assert "coppice repair" in answer.text
    assert site.path("traces/shard-00003.parquet").exists()
    assert not (site.folder / RUN / "traces" / "shard-00002.parquet").exists()


def test_plan_files_that_are_gone_are_written_by_the_same_plan(
    whole: Site, folders: Iterator[Path]
):
    site = whole.copied(next(folders))
    path = site.path("plan/0001-*/shard-00001.parquet")
    body = path.read_bytes()
    path.unlink()

    assert site.coppice(PLAN).code == 0
    assert path.read_bytes() == body


@pytest.mark.parametrize("kind", ["run.json is gone", "all plans are gone", "a plan file is cut"])
def test_what_is_lost_of_a_plan_is_had_back_from_traces(
    whole: Site, folders: Iterator[Path], kind: str
):
    site = damaged(whole, next(folders), kind)
    before = {path: path.read_bytes() for path in (whole.folder / RUN).rglob("plan/**/*.parquet")}

    for what in ("--run", "--plan", "--run --apply", "--plan --apply"):
        site.coppice(f"repair {RUN} {what}")

    assert site.coppice(f"verify {RUN} --deep").code == 0
    assert site.coppice(f"status {RUN}").text == whole.coppice(f"status {RUN}").text
    for path, body in before.items():
        rows = sorted_rows(site.folder / path.relative_to(whole.folder))
        assert rows == sorted_rows(path), body


def sorted_rows(path: Path) -> list[str]:
    return sorted(map(str, pq.read_table(path).to_pylist()))


def test_a_dry_repair_changes_nothing(whole: Site, folders: Iterator[Path]):
    site = damaged(whole, next(folders), "all plans are gone")
    before = sorted(site.folder.rglob("*"))

    for what in ("--run", "--plan"):
        assert "--apply" in site.coppice(f"repair {RUN} {what}").text

    assert sorted(site.folder.rglob("*")) == before
