"""The dialogues in tests/dialogs."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.dialogs.run_imap import FOLDER, matches, run

DIALOGS = sorted(FOLDER.glob("imap-*.txt"))


@pytest.mark.parametrize("path", DIALOGS, ids=lambda path: path.stem)
@pytest.mark.parametrize("dripped", [False, True], ids=["whole", "dripped"])
def test_the_dialogue_goes_as_written(path: Path, dripped: bool) -> None:
    run(path, dripped=dripped)


def test_a_dialogue_that_differs_fails(tmp_path: Path) -> None:
    for text in ("S: * OK …\nC: a NOOP\nS: a NO …\n", "S: * OK …\nC: a NOOP\n", "S: * OK …\nS: * OK …\n", "S * OK\n"):
        path = tmp_path / "imap-x.txt"
        path.write_text("# RFC 3501\n" + text)
        with pytest.raises(AssertionError):
            run(path)


def test_an_ellipsis_stands_for_anything() -> None:
    assert matches("a … c", "a [b] c")
    assert not matches("a … c", "a c")
    assert not matches("a", "ab")
    assert not matches("…", None)
