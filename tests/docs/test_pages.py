"""The commands of a page are taken from it as they stand, and outputs are held against them."""

import pytest

from tests.docs.pages import PAGES, ROOT, alike, commands_of, not_printed
from tests.docs.places import BEFORE, ENDS, NOT_RUN, PROVIDED, REPLACED, not_run, replaced

PAGE = """
```sh
coppice plan a.txt \\
  run   # plans
make test
```

```text
Planned: 3.
```

```toml
coppice = 1
```

    python -m pipeline.toy.prompts --number 3 > out

```console
$ coppice status run
Complete: 3 ok, 0 dead, in 1 shard.
Next: coppice show run 40031de7117c2c4a
```
"""


def test_a_page_gives_its_commands_in_order_with_the_output_that_it_shows():
    commands = commands_of("page", PAGE)

    assert [command.typed for command in commands] == [
        "coppice plan a.txt run",
        "make test",
        "python -m pipeline.toy.prompts --number 3 > out",
        "coppice status run",
    ]
    assert [len(command.shown) for command in commands] == [0, 1, 0, 2]


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
    typed = [
        command.typed for page in PAGES for command in commands_of(page, (ROOT / page).read_text())
    ]

    used = {rule for each in typed for rule in replaced(each)[1]}
    left_out = {rule for each in typed if (rule := not_run(each))}
    assert used == set(REPLACED)
    assert left_out == set(NOT_RUN)
    assert ENDS.keys() <= set(typed)
    assert BEFORE.keys() <= set(PAGES)
    assert all(name.partition("/")[0] in " ".join(typed) for name in PROVIDED)
