"""``twistd livemail run`` and ``twistd livemail check``.

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
            self.config = local_profile(data_folder()) if self["config"] is None else load(self["config"])
        except ConfigError as error:
            sys.stderr.write(f"{error}\n")
            raise SystemExit(EX_CONFIG) from None


class RunOptions(_ConfigOptions):
    """Options of ``twistd livemail run``."""

    longdesc = "Run the mail server.  Without --config: the local profile, on loopback, with data in $LIVEMAIL_DATA."
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
    ]

    def opt_version(self) -> NoReturn:
        """Print livemail's version and exit."""
        print(f"livemail {__version__}")  # noqa: T201 (the answer)
        raise SystemExit(0)

    def postOptions(self) -> None:
        if self.subCommand is None:
            raise usage.UsageError("say what to do: twistd livemail run, or twistd livemail check")


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

    chosen = options.subOptions
    if not isinstance(chosen, RunOptions):
        raise usage.UsageError("twistd livemail run is what makes a service")
    return MailServer(
        chosen.config,
        reactor,
        is_local_profile=chosen.is_local_profile,
        observer=chosen.observer,
        show=_show if chosen.is_program else None,
        takes_signals=chosen.is_program,
    )
