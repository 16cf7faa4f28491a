import os
import subprocess
import sys
from pathlib import Path

import pytest

from experiments.launch.allocation import GLIBC_TUNABLES

SCRIPT = """
import os
from experiments.launch.allocation import restart_with_allocation
restart_with_allocation()
print(os.environ.get("GLIBC_TUNABLES"))
"""


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="no /proc on this system")
@pytest.mark.parametrize(("given", "at_start", "for_children"), [(None, GLIBC_TUNABLES, "None"), ("x=1", "x=1", "x=1")])
def test_restarted_process_has_the_settings_but_its_children_do_not(given, at_start, for_children):
    environment = {name: value for name, value in os.environ.items() if name != "GLIBC_TUNABLES"}
    script = SCRIPT + 'print(open("/proc/self/environ").read())'
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=environment | ({"GLIBC_TUNABLES": given} if given else {}),
        capture_output=True,
        text=True,
        check=True,
    )
    inherited, started_with = done.stdout.split("\n", 1)
    assert inherited == for_children
    assert f"GLIBC_TUNABLES={at_start}" in started_with.replace("\0", ":")  # glibc splits it in place
