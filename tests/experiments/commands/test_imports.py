"""What a command imports before it needs it: the time until its first output is mostly that of the imports."""

import json
import subprocess
import sys

from place import Place
from run_folders import make_grid

# Calls commands one after the other, and prints the packages that are imported after each.
COMMANDS = """
import contextlib, io, json, runpy, sys
for command in json.loads(sys.argv[1]):
    sys.argv = ["experiments", *command]
    with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):
        runpy.run_module("experiments", run_name="__main__")
    print(json.dumps(list(sys.modules)))
"""
SLOW = {"mlflow", "matplotlib", "scipy", "optuna", "sklearn", "pandas", "torchvision"}


def test_help_status_plan_and_worker_do_not_import_slow_packages(tmp_path):
    place = Place(tmp_path)
    make_grid(place.runs, "cs-kd", seeds=1, epochs=2)
    commands = ["--help"], ["status"], ["grid", "demo", "--dry-run"], ["worker", "--help"]
    done = subprocess.run(
        [sys.executable, "-c", COMMANDS, json.dumps(commands)],
        cwd=place.sources, env=place.environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    usage, status, plan, worker = ({*SLOW, "torch"} & set(json.loads(line)) for line in done.stdout.splitlines())
    assert (usage, status, plan, worker) == (set(), set(), {"torch"}, {"torch", "scipy"})
