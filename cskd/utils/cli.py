"""What every command line of the project shares: one-line errors, exit codes, places."""

import argparse
import importlib
import os
import signal
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from cskd.utils.errors import UserError, one_line

ANY_NAME = "x" * 64  # about as long as the longest names of files below a folder of ours
STOPPED = "stopped: the same command goes on where this one ended"


def expect_ctrl_c() -> None:
    """Let Ctrl-C be one line also while a command's modules are still being imported."""

    def message(kind, error, trace) -> None:
        if issubclass(kind, KeyboardInterrupt):
            print(STOPPED, file=sys.stderr)
        else:
            sys.__excepthook__(kind, error, trace)

    sys.excepthook = message


def run(main: Callable[[], int | None]) -> None:
    """Call ``main`` and end the process: 0 or main's code, 2 for a UserError, 130 for Ctrl-C.

    A UserError is printed as one line on stderr. Any other exception is a defect of ours and keeps
    its traceback. SIGTERM is taken for Ctrl-C.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    _unset_impossible_size()
    try:
        sys.exit(main())
    except UserError as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print(STOPPED, file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:  # the reader of our output (`| head`) has gone
        sys.stdout = None
        sys.exit(0)


def dispatch(package: str, commands: dict[str, str]) -> None:
    """Run ``python -m <package> <command> ...``: ``main`` of the module ``<package>.commands.<command>``.

    commands: the line of help for each command. Only the module of the command that is asked for is imported.
    """
    program = f"python -m {package}"
    width = max(map(len, commands))
    listing = "\n".join(f"  {name:<{width}}  {text}" for name, text in commands.items())
    usage = f"usage: {program} <command> [options]\n\nCommands ({program} <command> --help tells more):\n{listing}"

    def main() -> int | None:
        name = sys.argv[1] if len(sys.argv) > 1 else "--help"
        if name in ("-h", "--help"):
            print(usage)
            return 0
        check_choice("command", name, commands)
        del sys.argv[1]
        return importlib.import_module(f"{package}.commands.{name}").main()

    run(main)


def _unset_impossible_size() -> None:
    """Unset COLUMNS and LINES where they are no size: rich prints nothing at all in 0 columns."""
    for name in ("COLUMNS", "LINES"):
        value = os.environ.get(name, "")
        if not (value.isdecimal() and len(value) < 6 and int(value)):
            os.environ.pop(name, None)


class Parser(argparse.ArgumentParser):
    """A command line whose mistakes are one line, like every other."""

    def error(self, message: str) -> None:
        raise UserError(f"{message}: see {self.prog} --help")


def positive(text: str) -> int:
    """An argument's type: a whole number from 1 to a million."""
    if not text.isdecimal() or len(text) > 7 or not 1 <= int(text) <= 1_000_000:
        raise argparse.ArgumentTypeError(f"{text} is not a number from 1 to 1,000,000")
    return int(text)


def place(variable: str, default: str) -> Path:
    """The folder named by an environment variable, absolute; ``default`` when unset or empty."""
    return absolute(os.environ.get(variable) or default, variable)


def absolute(path: str | Path, name: str) -> Path:
    """The path of a folder, absolute, with ``~`` for a home folder. It need not exist.

    name: of the variable or argument that it was given by. Raises UserError where nothing could be looked up in it.
    """
    try:
        folder = Path(path).expanduser().absolute()
        with suppress(FileNotFoundError, NotADirectoryError):
            (folder / ANY_NAME).lstat()
    except RuntimeError as error:
        raise UserError(f"{name}={path}: there is no such home folder: write it out") from error
    except OSError as error:  # a folder of somebody else's, a name that is too long
        raise UserError(f"{name}={path} cannot be used ({error.strerror}): give another folder") from error
    return folder


def check_writable(**folders: Path) -> None:
    """Raises UserError for a folder, named by its variable, in which no file can be made. It need not exist yet."""
    for name, folder in folders.items():
        there = next(each for each in (folder, *folder.parents) if os.path.lexists(each))
        try:
            tempfile.TemporaryFile(dir=there).close()
        except OSError as error:
            raise UserError(f"{name}={folder} cannot be written ({error.strerror}): give another folder") from error


def data_dir() -> Path:
    return place("DATA_DIR", "data")


def runs_dir() -> Path:
    return place("RUNS_DIR", "runs")


def results_dir() -> Path:
    return place("RESULTS_DIR", "results")


def tracking_uri() -> str:
    """Where MLflow keeps what it is told: ``MLFLOW_TRACKING_URI`` or ``mlflow.db`` in this folder."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{Path('mlflow.db').absolute()}"


def check_choice(kind: str, name: str, names) -> str:
    """``name`` if it is one of ``names``; else a UserError that lists them."""
    if name not in names:
        raise UserError(f"unknown {kind} {name!r}: choose from {', '.join(sorted(names))}")
    return name
