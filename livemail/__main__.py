"""The ``livemail`` command.

    livemail [--data DIR] [--config FILE] [--json] account add|list|show|password|remove
                                                   domain add|list|show|set|remove
                                                   alias add|list|show|set|remove
                                                   route show
                                                   queue list|show|stats|retry|hold|release|drop|edit|flush
                                                   store check|repair|backup DIR|verify DIR|restore DIR
                                                   message explain · filter new|test|list|reload|replay
                                                   import maildir|mbox|eml|imap SOURCE --account NAME
                                                   export maildir|mbox|eml TARGET --account NAME
                                                   dkim create|show|list
                                                   config show|check
                                                   ca show|path
                                                   run

It works beside a running server, over the control socket in the data folder, and on the data folder itself when no server
runs.  Exit status: 0 done; 1 problems were found, or it failed; 64 wrong usage; 65 bad input (an empty password, a line of a
batch); 66 no mail store; 67 no such account, domain or alias; 69 the server does not answer; 73 exists already; 75 not now, try again; 77 no permission; 78
configuration; 130 interrupted.  (sysexits.h, where it has one.)
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import hashes

from livemail import __version__
from livemail.admin import (
    address_words,
    addresses,
    backup_words,
    command,
    control,
    dkim_words,
    mending,
    message_words,
    queue_words,
    route_words,
    transfer_words,
)
from livemail.admin.backups import Backups
from livemail.admin.explain import Explain
from livemail.admin.filter_words import add_words as add_filter_words
from livemail.admin.mending import Mending
from livemail.admin.operations import (
    EX_NO_PERMISSION,
    EX_NO_STORE,
    EX_PROBLEMS,
    EX_UNAVAILABLE,
    EX_USAGE,
    Operations,
    Refused,
)
from livemail.admin.transfers import Transfers
from livemail.admin.undelete import Undeletes
from livemail.alone import filter_operation
from livemail.auth.passwords import Passwords
from livemail.config import EX_CONFIG, Config, ConfigError, data_folder, load, local_profile, show, verdict
from livemail.directory import AddressBook, StoreDirectory
from livemail.interfaces.storage import Progress
from livemail.net.threads import Threads
from livemail.storage.lmdb import LMDBStore
from livemail.storage.lmdb.folder import StoreError, StoreLocked, StoreMissing
from livemail.testing.commands import add_words as add_author_words

EX_INTERRUPTED = 130


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        self.exit(EX_USAGE, f"{self.prog}: {message}\n")


def parser() -> argparse.ArgumentParser:
    """The command's words and options."""
    words = _Parser(prog="livemail", description="Administer a livemail server, running or not.", epilog=_EPILOG)
    words.set_defaults(data=None, config=None, json=False)
    words.add_argument("--version", action="version", version=f"livemail {__version__}")
    subparsers = words.add_subparsers(metavar="WORD", required=True)
    store = command.add_words(subparsers)
    backup_words.add_words(store)
    mending.add_words(store)
    dkim_words.add_words(subparsers)
    message_words.add_words(subparsers)
    transfer_words.add_words(subparsers)
    address_words.add_words(subparsers)
    route_words.add_words(subparsers)
    queue_words.add_words(subparsers)
    filters = subparsers.add_parser("filter", help="write, try, list, reload and replay filters").add_subparsers(
        metavar="VERB", required=True
    )
    add_author_words(filters)
    add_filter_words(filters)
    config = subparsers.add_parser("config", help="show or check the configuration").add_subparsers(
        metavar="VERB", required=True
    )
    config.add_parser("show", help="print the effective configuration as TOML").set_defaults(local=_config_show)
    config.add_parser("check", help="say everything that is wrong with it").set_defaults(local=_config_check)
    authority = subparsers.add_parser("ca", help="the local certificate authority").add_subparsers(
        metavar="VERB", required=True
    )
    authority.add_parser("show", help="print its certificate and fingerprint").set_defaults(local=_ca_show)
    authority.add_parser("path", help="print the file to import into a mail program").set_defaults(local=_ca_path)
    subparsers.add_parser("run", help="run the server in the foreground (twistd -n livemail run)").set_defaults(
        local=_run
    )
    _common_options(words)
    return words


def _common_options(words: argparse.ArgumentParser) -> None:
    """Let ``--data``, ``--config`` and ``--json`` stand before or behind any word."""
    kept = argparse.SUPPRESS  # a word's own default must not undo what stood before it
    help_data = "data folder (else the configuration's, else $LIVEMAIL_DATA)"
    words.add_argument("--data", metavar="DIR", default=kept, help=help_data)
    words.add_argument("--config", metavar="FILE", default=kept, help="the server's configuration file")
    words.add_argument("--json", action="store_true", default=kept, help="print answers and errors as JSON")
    for action in words._actions:  # noqa: SLF001 - argparse has no public way to its subparsers
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001
            for inner in set(action.choices.values()):
                _common_options(inner)


_EPILOG = "Exit status: 0 done, 1 failed, 64 usage, 65 input, 66 no store, 67 not there, 73 exists, 75 later, 77 permission, 78 config."


def read_config(arguments: argparse.Namespace) -> Config:
    """The configuration the command is about.  Raises ConfigError."""
    if arguments.config:
        return load(arguments.config, str(Path(arguments.data).absolute()) if arguments.data else None)
    return local_profile(Path(arguments.data).absolute() if arguments.data else data_folder())


class Target:
    """Performs operations: over the control socket of the server that runs, else on the store itself."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._data = Path(config.data)

    def __call__(self, operation: str, arguments: Mapping[str, Any], progress: Progress) -> Any:
        """Perform one.  Raises Refused."""
        try:
            return control.ask(self._data, operation, arguments, progress)
        except PermissionError:
            raise Refused(
                f"{self._data} belongs to another user; run this as the server's user", EX_NO_PERMISSION
            ) from None
        except (FileNotFoundError, ConnectionRefusedError):
            return self._alone(operation, arguments, progress)
        except OSError as error:
            raise Refused(f"the control socket in {self._data} failed: {error.strerror}", EX_UNAVAILABLE) from None

    def _alone(self, operation: str, arguments: Mapping[str, Any], progress: Progress) -> Any:
        umask = os.umask(0o077)
        try:
            if operation.startswith("filter."):
                return filter_operation(self._config, operation, arguments, progress)
            return self._in_threads(operation, arguments, progress)
        except StoreLocked as error:
            raise Refused(f"{error}", EX_UNAVAILABLE) from None
        except StoreMissing as error:
            raise Refused(str(error), EX_NO_STORE) from None
        except StoreError as error:
            raise Refused(str(error), EX_PROBLEMS) from None
        finally:
            os.umask(umask)  # whoever calls main() within a process of its own goes on with files of its own

    def _in_threads(self, operation: str, arguments: Mapping[str, Any], progress: Progress) -> Any:
        from livemail.queue_wiring import add_queue_operations  # most of the server, which other commands need not load

        threads = Threads(os.cpu_count() or 1)
        settings = msgspec.structs.replace(self._config.storage, writer="thread")  # no process for one command
        try:
            store = threads.wait(
                LMDBStore.open(
                    self._data,
                    settings,
                    call_from_thread=threads.call,
                    run_blocking=threads.blocking,
                    maildir_of=self._config.placement().maildir_of,
                    quotas=self._config.quotas(),
                )
            )
            try:
                passwords = Passwords(threads.blocking, self._config.auth)
                directory = StoreDirectory(store, self._config.directory)
                threads.wait(directory.load())
                operations = Operations(store, directory.local_domains, passwords.hash)
                addresses.add_to(operations, AddressBook(store, directory, time.time), directory)
                route_words.add_to(operations, directory, None)
                operations.add("message.explain", Explain(store))
                add_queue_operations(operations, store, time.time)
                moves = Transfers(store, directory.local_domains, threads.blocking, os.cpu_count() or 1)
                repairs = Mending(store, is_serving=False)
                backups = Backups(store, directory.local_domains, threads.blocking)
                undeletes = Undeletes(store, directory.local_domains, threads.blocking, time.time)
                more = moves.operations() | backups.operations() | repairs.operations() | undeletes.operations()
                for name, function in more.items():
                    operations.add(name, function)
                return threads.wait(operations.perform(operation, arguments, progress))
            finally:
                threads.wait(store.close())
        finally:
            threads.stop()


def _config_show(arguments: argparse.Namespace, config: Config) -> int:
    text = show(config)
    if arguments.json:
        import tomllib

        print(json.dumps(tomllib.loads(text)))
    else:
        sys.stdout.write(text)
    return 0


def _config_check(arguments: argparse.Namespace, config: Config) -> int:
    command.say(arguments, {"errors": []}, verdict(config, arguments.config))
    return 0


def _ca_file(config: Config) -> Path:
    path = Path(config.data) / "tls" / "ca.pem"
    if not config.tls.local_ca:
        raise Refused("this configuration has certificates of its own; [tls] local_ca is false", EX_PROBLEMS)
    if not path.exists():
        raise Refused(f"{path} does not exist yet; the first start of the server makes it", EX_PROBLEMS)
    return path


def _ca_path(arguments: argparse.Namespace, config: Config) -> int:
    path = str(_ca_file(config))
    command.say(arguments, {"path": path}, path)
    return 0


def _ca_show(arguments: argparse.Namespace, config: Config) -> int:
    path = _ca_file(config)
    octets = path.read_bytes()
    certificate = x509.load_pem_x509_certificate(octets)
    told = {
        "path": str(path),
        "subject": certificate.subject.rfc4514_string(),
        "until": f"{certificate.not_valid_after_utc:%Y-%m-%d}",
        "sha256": certificate.fingerprint(hashes.SHA256()).hex(":"),
        "pem": octets.decode(),
    }
    text = f"{told['path']}\n{told['subject']}, valid until {told['until']}\nSHA-256 {told['sha256']}\n{told['pem']}"
    command.say(arguments, told, text.rstrip())
    return 0


def _run(arguments: argparse.Namespace, config: Config) -> int:
    from twisted.scripts.twistd import run

    if arguments.data:
        if arguments.config:
            raise Refused("run takes the data folder from the configuration; leave out --data", EX_USAGE)
        os.environ["LIVEMAIL_DATA"] = config.data
    sys.argv = ["twistd", "--nodaemon", "--pidfile=", "livemail", "run"]
    if arguments.config:
        sys.argv += ["--config", arguments.config]
    run()
    return 0


def _complain(as_json: bool, text: str, status: int) -> int:
    print(json.dumps({"error": text, "status": status}) if as_json else text, file=sys.stderr)
    return status


def main(argv: Sequence[str] | None = None) -> int:
    """Do what the command line says; return the exit status."""
    arguments = parser().parse_args(argv)
    try:
        if getattr(arguments, "to", None):
            arguments.data = arguments.to
        config = read_config(arguments)
        if "local" in arguments:
            return int(arguments.local(arguments, config))
        return int(arguments.verb(arguments, Target(config)))
    except ConfigError as error:
        if arguments.json:
            faults = [{"line": fault.line, "text": fault.text} for fault in error.faults]
            print(json.dumps({"file": error.path, "errors": faults, "status": EX_CONFIG}), file=sys.stderr)
            return EX_CONFIG
        return _complain(False, str(error), EX_CONFIG)
    except Refused as refused:
        return _complain(
            arguments.json, f"livemail: {refused.text}" if not arguments.json else refused.text, refused.status
        )
    except KeyboardInterrupt:
        return _complain(arguments.json, "interrupted", EX_INTERRUPTED)
    except BrokenPipeError:
        # Who read our answer has read enough; the interpreter must not complain about it at exit either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 0


if __name__ == "__main__":
    sys.exit(main())
