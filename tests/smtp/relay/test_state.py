from livemail.smtp.relay.state import CLOSING, GO, OK, WRONG, meaning, table_text


def test_the_table_reads_as_documented():
    assert table_text() == (
        "stage     2yz    3yz    4yz    5yz    421\n"
        "greeting  ok     wrong  later  never  closing\n"
        "ehlo      ok     wrong  later  never  closing\n"
        "helo      ok     wrong  later  never  closing\n"
        "starttls  ok     wrong  later  never  closing\n"
        "auth      ok     go     later  never  closing\n"
        "rset      ok     wrong  later  never  closing\n"
        "mail      ok     wrong  later  never  closing\n"
        "rcpt      ok     wrong  later  never  closing\n"
        "data      wrong  go     later  never  closing\n"
        "chunk     ok     wrong  later  never  closing\n"
        "content   ok     wrong  later  never  closing\n"
        "quit      ok     wrong  later  never  closing\n"
    )


def test_a_code_means_what_its_first_digit_says_and_421_the_end():
    assert meaning("rcpt", 251) is meaning("rcpt", 299) is OK
    assert meaning("data", 354) is meaning("data", 399) is GO
    assert meaning("content", 354) is meaning("data", 250) is WRONG
    assert all(meaning(stage, 421) is CLOSING for stage in ("greeting", "mail", "content", "quit"))
