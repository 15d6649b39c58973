"""The public API is what authors build on: a name or an argument that goes away breaks their filters, so it fails here first."""

from __future__ import annotations

import inspect

import msgspec

import livemail.filters as api

NAMES = {
    "BODY_CHUNK", "CONTINUE", "SKIP", "Accept", "Address", "ConnectionInfo", "Continue", "Defer", "Discard", "EditError",
    "Filter", "FilterPlugin", "IFilterPlugin", "Message", "MessagePart", "Path", "Quarantine", "Recipient", "Record", "Reject",
    "ReversePath", "Server", "Skip", "Transaction", "Verdict",
}  # fmt: skip

STAGES = {
    "connect": ["self", "tx"],
    "helo": ["self", "tx", "name"],
    "mail": ["self", "tx", "reverse_path"],
    "rcpt": ["self", "tx", "recipient"],
    "data": ["self", "tx"],
    "headers": ["self", "tx", "message"],
    "body": ["self", "tx", "chunk"],
    "message": ["self", "tx", "message"],
    "closed": ["self"],
    "start": ["config", "server"],
    "stop": ["shared"],
    "__init__": ["self", "config"],
}

FIELDS = {
    api.Reject: ["enhanced", "text", "reason", "code"],
    api.Defer: ["enhanced", "text", "reason", "code"],
    api.Accept: ["reason"],
    api.Discard: ["reason"],
    api.Quarantine: ["reason"],
    api.ConnectionInfo: ["session", "service", "peer", "port", "tls", "authcid", "mechanism"],
    api.Record: ["filter", "stage", "verdict", "seconds", "is_failure", "count", "edits"],
    api.Server: ["hostname", "reactor", "now", "run_blocking", "resolver", "directory", "folder"],
}

MEMBERS = {
    api.Transaction: {
        "connection", "helo", "reverse_path", "recipients", "records", "score", "scores", "add_score", "add_recipient",
        "remove_recipient", "change_reverse_path",
    },
    api.Message: {
        "size", "summary", "fields", "values", "text", "addresses", "chunks", "parts", "add_header", "insert_header", "change_header",
        "remove_header", "replace_body",
    },
    api.MessagePart: {"media_type", "header", "filename", "extension", "size", "read", "decoded"},
    api.Filter: {"Config", "blocking", "server", "shared", "must_defer"},
}  # fmt: skip


def test_the_names_are_these():
    assert set(api.__all__) == NAMES
    assert all(hasattr(api, name) for name in NAMES)


def test_the_stages_take_these_arguments():
    for name, arguments in STAGES.items():
        assert list(inspect.signature(getattr(api.Filter, name)).parameters) == arguments, name
        assert name in {"closed", "start", "stop", "__init__"} or inspect.iscoroutinefunction(getattr(api.Filter, name))


def test_the_values_have_these_fields_in_this_order():
    for kind, fields in FIELDS.items():
        assert [field.name for field in msgspec.structs.fields(kind)] == fields, kind


def test_the_objects_have_these_members_with_a_word_about_each():
    for kind, members in MEMBERS.items():
        for member in members:
            assert hasattr(kind, member), (kind, member)
            assert member in {"blocking", "server", "shared"} or inspect.getdoc(getattr(kind, member)), (kind, member)
