from __future__ import annotations

import pytest

from tests.smtp.rig import DIALOGS, run_dialog

NAMES = sorted(path.name for path in DIALOGS.glob("smtp-*.txt"))


@pytest.mark.parametrize("mode", ["whole", "bytes", "tail"])
@pytest.mark.parametrize("name", NAMES)
def test_a_transcript_plays_as_written(name, mode):
    run_dialog(name, mode)


@pytest.mark.parametrize("mode", ["whole", "bytes", "tail"])
def test_the_message_of_the_transcript_is_stored_once_for_each_recipient(mode):
    rig, client = run_dialog("smtp-mail.txt", mode)
    assert client.is_closed
    mine = rig.mail(account=1)
    assert len(mine) == len(rig.mail()) == 1
    assert mine[0].startswith(
        b"Return-Path: <smith@bar.example>\r\nDelivered-To: me@localhost\r\nX-Original-To: Me+list@localhost\r\nReceived: from client.example ([192.168.1.1])\r\n"
    )
    assert mine[0].endswith(b"\r\nSubject: hello\r\n\r\nBlah blah blah...\r\n.etc.\r\n")
    assert b" for <" not in mine[0]
