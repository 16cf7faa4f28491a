"""Shared by all commands: exit codes, one-line errors, arguments, and folders from environment variables."""

import argparse
import gc
import importlib
import io
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from cskd.utils.databases import absolute_address
from cskd.utils.errors import UserError, check_choice, one_line
from cskd.utils.limits import usable_cores

LONG_NAME = "x" * 64  # about as long as the longest file name in the project's folders
STOPPED = "stopped: the same command continues where this one ended"


def expect_ctrl_c() -> None:
    """Print one line for Ctrl-C, not a traceback, while a command's modules are still being imported."""

    def excepthook(kind, error, trace) -> None:
        if issubclass(kind, KeyboardInterrupt):
            print(STOPPED, file=sys.stderr)
        else:
            sys.__excepthook__(kind, error, trace)

    sys.excepthook = excepthook


def run(main: Callable[[], int | None]) -> None:
    """Call ``main`` and exit: with its return value (or 0), with 2 after a UserError, with 130 after Ctrl-C.

    A UserError is printed as one line on stderr. Any other exception is a bug and keeps its traceback. SIGTERM is
    handled like Ctrl-C. Output works with any locale.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.unraisablehook = _stop_after_all
    _unset_invalid_terminal_size()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # characters that the terminal's encoding lacks, such as † or ±
    try:
        sys.exit(main())
    except UserError as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print(STOPPED, file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:  # the reader of the output has ended, as in `| head`
        sys.stdout = None
        sys.exit(0)


def _stop_after_all(ignored) -> None:
    """Repeat a stop that Python ignores because it arrived in a destructor or in the callback of a weak reference."""
    if not issubclass(ignored.exc_type, KeyboardInterrupt):
        sys.__unraisablehook__(ignored)
        return
    again = threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGTERM))  # not at once: this hook would ignore it too
    again.daemon = True
    again.start()


def dispatch(package: str, commands: dict[str, str]) -> None:
    """Run ``python -m <package> <command> ...``: call ``main`` of the module ``<package>.commands.<command>``.

    commands: command name to help text; a hyphen is an underscore in the module's name. Only the module of the
        selected command is imported.
    """
    program = f"python -m {package}"
    width = max(map(len, commands))
    listing = "\n".join(f"  {name:<{width}}  {text}" for name, text in commands.items())
    usage = f"usage: {program} <command> [options]\n\nCommands (details: {program} <command> --help):\n{listing}"

    def main() -> int | None:
        name = sys.argv[1] if len(sys.argv) > 1 else "--help"
        if name in ("-h", "--help"):
            print(usage)
            return 0
        check_choice("command", name, commands)
        del sys.argv[1]
        if sys.stderr.isatty() and not {"-h", "--help"} & set(sys.argv):
            print(f"{name}: starting", file=sys.stderr)  # importing torch takes seconds
        os.environ["OMP_NUM_THREADS"] = str(usable_cores())  # torch ignores CPU quotas
        gc.disable()  # an import makes hardly any garbage, but many objects that the collector would visit
        command = importlib.import_module(f"{package}.commands.{name.replace('-', '_')}")
        gc.freeze()  # what is imported stays: no later collection visits it
        gc.enable()
        return command.main()

    run(main)


def _unset_invalid_terminal_size() -> None:
    """Unset COLUMNS and LINES if they are not positive integers: with 0 columns rich prints nothing."""
    for name in ("COLUMNS", "LINES"):
        value = os.environ.get(name, "")
        if not (value.isdecimal() and len(value) < 6 and int(value)):
            os.environ.pop(name, None)


class Parser(argparse.ArgumentParser):
    """An argument parser that raises UserError, so that its errors are one line too. It keeps a description's lines."""

    def __init__(self, prog: str, description: str):
        super().__init__(prog=prog, description=description, formatter_class=argparse.RawDescriptionHelpFormatter)

    def error(self, message: str) -> None:
        raise UserError(f"{message}: see {self.prog} --help")


def positive(text: str) -> int:
    """Argument type: an integer from 1 to 1,000,000."""
    if not text.isdecimal() or len(text) > 7 or not 1 <= int(text) <= 1_000_000:
        raise argparse.ArgumentTypeError(f"{text} is not a number from 1 to 1,000,000")
    return int(text)


def env_dir(variable: str, default: str) -> Path:
    """Return the absolute folder in an environment variable, or ``default`` if it is unset or empty."""
    return absolute(os.environ.get(variable) or default, variable)


def absolute(path: str | Path, name: str) -> Path:
    """Return the absolute path of a folder, which need not exist. ``~`` is expanded.

    name: the variable or argument that contains the path. Raises UserError if files in the folder cannot be accessed.
    """
    try:
        folder = Path(path).expanduser().absolute()
        with suppress(FileNotFoundError, NotADirectoryError):
            (folder / LONG_NAME).lstat()
    except RuntimeError as error:
        raise UserError(f"{name}={path}: this home folder does not exist: write the full path") from error
    except OSError as error:  # no permission, or the name is too long
        raise UserError(f"{name}={path} cannot be used ({error.strerror}): give another folder") from error
    return folder


def check_writable(**folders: Path) -> None:
    """Raise UserError for a folder in which no file can be created. Each keyword is the name of the folder's variable.

    A folder that does not exist is checked by its nearest existing parent.
    """
    for name, folder in folders.items():
        existing = next(path for path in (folder, *folder.parents) if os.path.lexists(path))
        try:
            tempfile.TemporaryFile(dir=existing).close()
        except OSError as error:
            raise UserError(f"{name}={folder} cannot be written ({error.strerror}): give another folder") from error


def data_dir() -> Path:
    return env_dir("DATA_DIR", "data")


def runs_dir() -> Path:
    return env_dir("RUNS_DIR", "runs")


def results_dir() -> Path:
    return env_dir("RESULTS_DIR", "results")


def tracking_uri() -> str:
    """Return ``MLFLOW_TRACKING_URI``, or the database ``mlflow.db`` in the current folder, with an absolute path."""
    return absolute_address(os.environ.get("MLFLOW_TRACKING_URI") or "sqlite:///mlflow.db")
