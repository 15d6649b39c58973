"""``twistd livemail run``, ``twistd livemail check`` and ``twistd livemail milter``.

One-shot work is done in ``postOptions``, before twistd looks at its pid file, so that ``check`` works beside a running
server.  Messages about the configuration are ours alone: short, all at once, exit status 78 (sysexits.h EX_CONFIG).
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import TracebackType
from typing import Any, NoReturn

from twisted.application.service import IService
from twisted.python import usage

from livemail import __version__
from livemail.app import MailServer, StartError
from livemail.config import EX_CONFIG, Config, ConfigError, data_folder, load, local_profile, verdict
from livemail.filters.find import CannotFind
from livemail.milter.place import parse_place as parse_socket
from livemail.milter_service import MilterServer, Serving, chosen
from livemail.net.log import LineObserver

_observers: list[LineObserver] = []


def log_observer() -> LineObserver:
    """The observer the options made: what ``twistd --logger`` is told to call."""
    return _observers[0]


class _ConfigOptions(usage.Options):
    """Reads the configuration; what is wrong with it ends the program."""

    optParameters = [  # noqa: RUF012 (Twisted's way)
        ["config", "c", None, "Configuration file (TOML); without it the local profile runs."],
    ]

    config: Config

    @property
    def is_local_profile(self) -> bool:
        """Whether there is no file."""
        return self["config"] is None

    def postOptions(self) -> None:
        try:
            self.config = self.read_config()
        except ConfigError as error:
            sys.stderr.write(f"{error}\n")
            raise SystemExit(EX_CONFIG) from None

    def read_config(self) -> Config:
        """Read what there is.  Raises ConfigError."""
        return local_profile(data_folder()) if self["config"] is None else load(self["config"])


class _ServingOptions(_ConfigOptions):
    """Options of what goes on running: it has a log."""

    observer: LineObserver | None = None
    is_program = False
    """Whether twistd or twist runs us, as opposed to a program that embeds us."""

    def postOptions(self) -> None:
        super().postOptions()
        root: Any = self.parent
        while root is not None and root.parent is not None:
            root = root.parent
        self.is_program = root is not None
        if self.is_program:
            if "nodaemon" in root:  # twistd; twist (python -m twisted) has its own options for the log
                self._adopt_log(root)
            sys.excepthook = _short(sys.excepthook)

    def _adopt_log(self, root: Any) -> None:
        """Have twistd log through ours, unless its own options say where to."""
        if root.get("logger") or root.get("logfile") or root.get("syslog"):
            return
        if not root["nodaemon"] and not self.config.log.file:
            return
        try:
            observer = LineObserver(self.config.log, sys.stderr)
        except OSError as error:
            sys.stderr.write(f"{self['config']}: [log] file {error.filename}: {error.strerror}\n")
            raise SystemExit(EX_CONFIG) from None
        self.observer = observer
        _observers[:] = [observer]
        # twistd takes a name and imports it after this returns.
        root["logger"] = "livemail.tap.log_observer"


class RunOptions(_ServingOptions):
    """Options of ``twistd livemail run``."""

    longdesc = "Run the mail server.  Without --config: the local profile, on loopback, with data in $LIVEMAIL_DATA."


class MilterOptions(_ServingOptions):
    """Options of ``twistd livemail milter``."""

    longdesc = (
        "Serve livemail's filters to Postfix or Sendmail by the milter protocol: those of the [[filter]] tables in --config,"
        " or one of them, or any filter with its defaults."
    )
    optParameters = [  # noqa: RUF012 (Twisted's way)
        ["listen", "l", None, "Where: inet:PORT@HOST, inet6:PORT@HOST or unix:/path."],
        [
            "filter",
            "f",
            "",
            "Only this filter: a name of the configuration, of `livemail filter list`, or package.module:Class.",
        ],
        ["service", "s", "smtp", "The service whose filters are served: smtp, submission, submissions or lmtp."],
    ]
    serving: Serving

    def postOptions(self) -> None:
        """Read everything; what is wrong ends the program."""
        if self["listen"] is None:
            raise usage.UsageError("say where: --listen inet:PORT@HOST or --listen unix:/path")
        if self["config"] is None and not self["filter"]:
            raise usage.UsageError("say what to serve: --config FILE with [[filter]] tables, or --filter NAME")
        if self["service"] not in _SERVICES:
            raise usage.UsageError(f"--service is one of {', '.join(_SERVICES)}")
        try:
            self.serving = Serving(parse_socket(self["listen"]), self["service"], self["filter"])
        except ValueError as error:
            raise usage.UsageError(f"--listen: {error}") from None
        super().postOptions()
        try:
            chosen(self.config, self["filter"])
        except (CannotFind, ValueError) as error:
            sys.stderr.write(f"--filter: {error}\n")
            raise SystemExit(EX_CONFIG) from None

    def read_config(self) -> Config:
        return super().read_config() if self["config"] is None else load(self["config"], is_server=False)


_SERVICES = ("smtp", "submission", "submissions", "lmtp")


class CheckOptions(_ConfigOptions):
    """Options of ``twistd livemail check``."""

    longdesc = "Check the configuration, say everything that is wrong with it, and exit: 0 or 78."

    def postOptions(self) -> None:
        super().postOptions()
        print(verdict(self.config, self["config"]))  # noqa: T201 (the answer)
        raise SystemExit(0)


class Options(usage.Options):
    """``twistd livemail``'s words.  There is no default among them: a bare ``twistd livemail`` would daemonise at once."""

    subCommands = [  # noqa: RUF012 (Twisted's way)
        ["run", None, RunOptions, "Run the mail server."],
        ["check", None, CheckOptions, "Check the configuration and exit."],
        ["milter", None, MilterOptions, "Serve the filters to Postfix or Sendmail."],
    ]

    def opt_version(self) -> NoReturn:
        """Print livemail's version and exit."""
        print(f"livemail {__version__}")  # noqa: T201 (the answer)
        raise SystemExit(0)

    def postOptions(self) -> None:
        if self.subCommand is None:
            raise usage.UsageError("say what to do: twistd livemail run, check or milter")


Hook = Callable[[type[BaseException], BaseException, TracebackType | None], object]


def _short(hook: Hook) -> Hook:
    """A start that failed is a message, not a traceback."""

    def print_exception(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if isinstance(error, StartError):
            sys.__stderr__.write(f"{error}\n") if sys.__stderr__ else None
        else:
            hook(kind, error, trace)

    return print_exception


def _show(text: str) -> None:
    """Print the banner on the terminal; twistd has put its log where `sys.stdout` was."""
    out = sys.__stdout__
    if out is not None:
        out.write(text)
        out.flush()


def makeService(options: Options) -> IService:
    """Make the server from parsed options.  Nothing is opened before the service is started."""
    from twisted.internet import reactor

    asked = options.subOptions
    if isinstance(asked, MilterOptions):
        return MilterServer(
            asked.config,
            asked.serving,
            reactor,
            observer=asked.observer,
            read_config=asked.read_config,
            takes_signals=asked.is_program,
        )
    if not isinstance(asked, RunOptions):
        raise usage.UsageError("twistd livemail run and twistd livemail milter are what make a service")
    return MailServer(
        asked.config,
        reactor,
        is_local_profile=asked.is_local_profile,
        observer=asked.observer,
        show=_show if asked.is_program else None,
        takes_signals=asked.is_program,
        read_config=asked.read_config,
    )
