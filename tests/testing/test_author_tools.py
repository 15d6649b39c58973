"""``livemail filter new`` and ``livemail filter test``, as an author types them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def livemail(*words, cwd, status=0):
    ran = subprocess.run(
        [sys.executable, "-m", "livemail", *words], cwd=cwd, capture_output=True, text=True, timeout=120, check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT), "LIVEMAIL_DATA": str(cwd / "data")},
    )  # fmt: skip
    assert ran.returncode == status, ran.stdout + ran.stderr
    return ran.stdout if "--json" in words else ran.stdout + ran.stderr


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    above = tmp_path_factory.mktemp("new")
    livemail("filter", "new", "no-words", cwd=above)
    return above / "no-words"


def test_a_new_package_passes_its_own_tests_as_it_is(package):
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"], cwd=package, capture_output=True, text=True,
        timeout=120, check=False, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert ran.returncode == 0, ran.stdout
    assert "passed" in ran.stdout


def test_its_corpus_is_right_and_the_hostile_messages_are_tried(package):
    said = livemail("filter", "test", "no_words.py", "corpus", cwd=package)
    assert "0 wrong, 2 with golden verdicts" in said
    assert "ok    marked.smtp" in said
    assert "ok    hostile/zip-bomb" in said


def test_another_verdict_than_the_golden_one_is_shown_and_is_status_1(package, tmp_path):
    (tmp_path / "one.eml").write_text("Subject: hello\n\nx\n")
    (tmp_path / "one.verdict").write_text("reject 550 5.7.1 no\n")
    (tmp_path / "two.smtp").write_text("S: 220 *\nC: NOOP\nS: 500 *\n")
    file = str(package / "no_words.py")
    said = livemail("filter", "test", file, str(tmp_path), "--no-hostile", cwd=package, status=1)
    assert "WRONG one.eml" in said
    assert "-reject 550 5.7.1 no" in said
    assert "+continue" in said
    assert "WRONG two.smtp" in said
    assert "line 3: expected '500 *', came '250 2.0.0 Ok'" in said
    livemail("filter", "test", file, str(tmp_path / "one.eml"), "--no-hostile", "--update", cwd=package)
    assert (tmp_path / "one.verdict").read_text() == "continue\nedit add-header X-Checked-By\n"


def test_a_filter_that_fails_is_wrong_with_its_line(tmp_path):
    (tmp_path / "bad.py").write_text(
        "from livemail.filters import Filter\n\nclass Bad(Filter):\n    async def message(self, tx, message):\n        return 1 / 0\n"
    )
    told = json.loads(livemail("--json", "filter", "test", "bad.py", "hostile", cwd=tmp_path, status=1))
    assert told["wrong"] == told["messages"] > 40
    assert "bad.py:5: ZeroDivisionError" in told["tried"][0]["failure"]


def test_settings_come_from_the_command_line_as_from_a_table(package):
    said = livemail(
        "filter",
        "test",
        "no_words.py",
        "corpus/plain.eml",
        "--no-hostile",
        "--set",
        'words=["hello"]',
        cwd=package,
        status=1,
    )
    assert "+reject 550 5.7.1 A subject must not hold the word hello" in said
    said = livemail("filter", "test", "no_words.py", "corpus", "--set", "wrds=1", cwd=package, status=65)
    assert "unknown key `wrds` in [[filter]]; did you mean `words`?" in said


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["new", "No Words"], 65, "cannot be a filter's name"),
        (["new", "twisted"], 65, "name of another module"),
        (["new", "json"], 65, "'json' is the name of another module; choose another"),
        (["new", "msgspec"], 65, "'msgspec' is the name of another module; choose another"),
        (["new", "tests"], 65, "'tests' is the name of another module; choose another"),
        (["new", "dkim-sign"], 65, "'dkim-sign' is a filter that is there already; choose another name"),
        (["test", "none.py", "hostile"], 65, "none.py is not a file"),
        (["test", "limits", "nowhere", "--set", "max_parts=1"], 65, "nowhere is not there"),
        (["test", "broken.py", "hostile"], 65, "broken.py:1: SyntaxError"),
        (["test", "two.py", "hostile"], 65, "two.py has 2 filters; write two.py:A, or another of A, B"),
        (["replay", "x", "--since", "soon"], 64, "'soon' is not an age"),
        (["reload"], 69, "no server runs on"),
    ],
)
def test_what_is_wrong_is_said_in_a_line(tmp_path, words, status, said):
    (tmp_path / "broken.py").write_text("def f(:\n")
    (tmp_path / "two.py").write_text(
        "from livemail.filters import Filter\nclass A(Filter): pass\nclass B(Filter): pass\n"
    )
    assert said in livemail("filter", *words, cwd=tmp_path, status=status)


def test_list_without_a_server_tells_the_configuration_and_the_names(tmp_path):
    (tmp_path / "x.toml").write_text(
        'data = "data"\n[[listen]]\nservice = "lmtp"\naddress = "127.0.0.1:2400"\n[[filter]]\nuse = "limits"\nmax_parts = 3\n'
    )
    said = livemail("--config", "x.toml", "filter", "list", cwd=tmp_path)
    assert "(no server runs; this is the configuration)" in said
    assert "limits: livemail.filters.shipped.limits:Limits; at mail, rcpt, headers" in said
    assert "names for `use`:" in said
