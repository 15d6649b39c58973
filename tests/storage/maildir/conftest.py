from __future__ import annotations

import pytest

from tests.storage.maildir.rig import MaildirFolderRig


@pytest.fixture
def rig(tmp_path):
    made = MaildirFolderRig(tmp_path)
    yield made
    problems = made.problems()
    made.close()
    assert problems == []
