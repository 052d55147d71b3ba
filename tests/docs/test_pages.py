"""The commands of a page are taken from it as they stand, and outputs are held against them."""

import os
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs.pages import PAGES, ROOT, alike, commands_of, not_printed, tables_of
from tests.docs.places import BEFORE, IN_TABLES, NOT_RUN, REPLACED, replaced
from tests.docs.provided import PROVIDED, SHOWN, files_of
from tests.docs.shell import Shell, marked_with

PAGE = """
```sh
coppice plan a.txt \\
  run   # plans
swift sft
```

```text
Planned: 3.
```

```toml
coppice = 1
```

    python -m pipeline.toy.prompts --number 3 > out

```
exports/<trainer>/part-*   files
```

```console
$ coppice status run
Complete: 3 ok, 0 dead, in 1 shard.
Next: coppice show run 40031de7117c2c4a
```
"""
TYPED = {
    page: [command.typed for command in commands_of(page, (ROOT / page).read_text())]
    for page in PAGES
}
ALL_TYPED = [typed for page in PAGES for typed in TYPED[page]]


def test_a_page_gives_its_commands_in_order_with_the_output_that_it_shows():
    commands = commands_of("page", PAGE)

    assert [command.typed for command in commands] == [
        "coppice plan a.txt run",
        "swift sft",
        "python -m pipeline.toy.prompts --number 3 > out",
        "coppice status run",
    ]
    assert [len(command.shown) for command in commands] == [0, 1, 0, 2]
    assert tables_of(PAGE) == ["coppice = 1\n"]


@pytest.mark.parametrize(
    ("shown", "printed", "is_alike"),
    [
        ("Grew 32 rollouts in 7 s: 4.57 a second.", "Grew 32 rollouts in 9 s: 3.2 a second.", True),
        ("Next: coppice show r 40031de7117c2c4a", "Next: coppice show r 79ace69c58375403", True),
        ("Complete: 32 ok, 0 dead.", "Complete: 31 ok, 1 dead.", False),
        ("Device seconds: 3 on cpu (3 load).", "Device seconds: 9 on cpu (8 generate).", True),
    ],
)  # fmt: skip
def test_outputs_are_alike_but_for_ids_times_and_rates(shown: str, printed: str, is_alike: bool):
    assert alike(shown, printed) is is_alike


def test_lines_that_are_missing_or_come_in_another_order_are_told():
    assert not_printed(("a", "b"), "more\na\nb\n") == []
    assert not_printed(("b", "a"), "a\nb\n") == ["a"]


def test_every_replacement_and_every_command_left_out_is_of_some_page():
    before = [typed for rule in BEFORE for typed in rule.commands]
    used = {rule for each in [*ALL_TYPED, *before] for rule in replaced(each)[1]}

    assert used == set(REPLACED)
    assert all(any(re.search(rule.typed, each) for each in ALL_TYPED) for rule in NOT_RUN)


def test_what_is_there_before_is_wanted_by_some_page():
    shown = {page: "".join(files_of(page).values()) for page in (*PROVIDED, *SHOWN)}

    assert all(any(re.search(rule.typed, each) for each in TYPED[rule.page]) for rule in BEFORE)
    assert all(any(re.search(rule.typed, text) for text in shown.values()) for rule in IN_TABLES)
    for page, files in PROVIDED.items():
        wanted = " ".join(replaced(each)[0] for each in TYPED[page])
        assert [name for name in files if name.split("/")[0].split(".")[0] not in wanted] == []


def test_files_that_pages_show_are_called_what_commands_call_them():
    for page, (source, names) in SHOWN.items():
        assert len(tables_of((ROOT / source).read_text())) >= len(names)
        called = {name for name in names if any(name in each for each in TYPED[page])}
        assert called
        assert all(tomllib.loads(files_of(page)[name]) for name in called)


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    opened = Shell(tmp_path, os.environ | {"TMPDIR": str(tmp_path)}, mark=str(tmp_path))
    yield opened
    opened.end()


def test_a_shell_keeps_what_is_exported_and_tells_how_a_command_ended(shell: Shell):
    assert shell.type("export WORD=there") == ("", 0)
    assert shell.type("echo $WORD; (exit 7)") == ("there\n", 7)
    assert shell.type("false | cat") == ("", 1)


def test_what_stays_is_waited_for_and_ends_with_the_shell(shell: Shell, tmp_path: Path):
    said, code = shell.type("until_it_says up setsid sh -c 'echo up as $$; sleep 600'")
    failed = shell.type("until_it_says up sh -c 'echo no; exit 3'")
    before = marked_with(str(tmp_path))
    shell.end()

    assert (code, failed) == (0, ("no\n", 1))
    assert int(said.split()[-1]) in before
    assert marked_with(str(tmp_path)) == []
    assert shell.type("true")[1] == -1
