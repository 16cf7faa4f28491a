"""Submission to Slurm and its queue, with small programs in place of Slurm's. ``tests/clusters`` has a real Slurm."""

import json
import os
import shlex
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from place import epoch_options
from run_folders import make_run, make_spec, plan_of

from cskd.utils.errors import UserError
from experiments.commands import grid as grid_command
from experiments.launch.backends.base import EXIT_DONE, EXIT_FAILED, EXIT_INTERRUPTED, Job
from experiments.launch.backends.slurm import SCRIPT, SlurmBackend, queued_tasks
from experiments.runs.folder import INTERRUPTED, RUNNING, RunFolder

FAKE = """#!{python}
import json, os, sys
from pathlib import Path
folder = Path({folder!r})
name, arguments = Path(sys.argv[0]).name, sys.argv[1:]
calls = json.loads((folder / "calls").read_text()) if (folder / "calls").exists() else []
calls.append([name, *arguments])
(folder / "calls").write_text(json.dumps(calls))
if name == "sbatch":
    if "--partition=none" in arguments and any("afterok" in text for text in arguments):
        sys.exit("sbatch: error: invalid partition specified: none\\nsbatch: error: Batch job submission failed")
    assert "OMP_NUM_THREADS" not in os.environ
    print(100 + sum(call[0] == "sbatch" for call in calls))
elif name == "squeue":
    print((folder / "queue").read_text(), end="")
"""


class FakeSlurm:
    """Records the calls of sbatch, squeue, scontrol and scancel."""

    def __init__(self, folder: Path):
        self.folder = folder
        folder.mkdir()
        self.queue([])
        for name in ("sbatch", "squeue", "scontrol", "scancel"):
            (folder / name).write_text(FAKE.format(python=sys.executable, folder=str(folder)))
            (folder / name).chmod(0o755)

    def calls(self, name: str) -> list[list[str]]:
        return [call[1:] for call in json.loads((self.folder / "calls").read_text()) if call[0] == name]

    def queue(self, tasks: list[tuple[str, str, str, int, str]]) -> None:
        """Set squeue's answer: (id, state, node, restarts, path of the list of tasks)."""
        lines = [f"{number}|{state}|{node}|{count}|{SCRIPT} {tasks}|\n" for number, state, node, count, tasks in tasks]
        (self.folder / "queue").write_text("".join(lines))


@pytest.fixture
def slurm(call, tmp_path, monkeypatch) -> FakeSlurm:
    """The programs of Slurm. Nothing is tracked in MLflow, whose import takes seconds."""

    def no_tracker(plan):
        raise ModuleNotFoundError(name="mlflow")

    monkeypatch.setattr(grid_command, "_open_tracker", no_tracker)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    return FakeSlurm(tmp_path / "bin")


def tasks_of(submission: list[str]) -> list[list[str]]:
    """Return the words of each task of a submitted array: folder, log and command."""
    return [shlex.split(line) for line in Path(submission[-1]).read_text().splitlines()]


def options_of(submission: list[str]) -> dict[str, str]:
    """Return the options that sbatch would use: the last of each name."""
    return dict(option.removeprefix("--").partition("=")[::2] for option in submission[:-2])


KD = ("experiments grid", "table4", "--datasets", "digits", "--methods", "cross-entropy", "kd", "--seeds", "0", "1")
KD += (*epoch_options(2), "--launcher", "slurm", "--workers", "8")


def test_grid_is_an_array_and_one_of_the_students_of_each_teacher_and_an_upload(call, slurm, monkeypatch, tmp_path):
    monkeypatch.setenv("SLURM", "--partition=gpu --time=8:00:00 --cpus-per-task=2")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    status, output, errors = call(*KD)
    assert (status, errors) == (0, "")
    first, students, sync = slurm.calls("sbatch")
    assert [len(tasks_of(one)) for one in (first, students, sync)] == [3, 2, 1]
    assert options_of(first).items() >= {
        "array": "0-2%8", "partition": "gpu", "time": "8:00:00", "cpus-per-task": "2", "gres": "gpu:1", "requeue": "",
    }.items()  # fmt: skip
    assert "dependency" not in options_of(first)
    architectures = [RunFolder(Path(folder)).spec().architecture for folder, *_ in tasks_of(first)]
    assert options_of(students)["dependency"] == f"afterok:101_{architectures.index('densenet41')}"
    assert options_of(students)["kill-on-invalid-dep"] == "yes"
    assert options_of(sync)["dependency"] == "afterany:101:102"
    assert "gres" not in options_of(sync)
    assert tasks_of(sync)[0][-1] == "sync"
    for folder, log, *command in tasks_of(students):
        assert Path(folder).parent == tmp_path / "runs"
        assert (command[-2:], Path(log).parent) == (["worker", folder], Path(folder))
    assert "Slurm job 102: 2 tasks, at most 8 at once, after job 101_" in output


@pytest.fixture
def jobs(tmp_path) -> list[Job]:
    """A teacher, two of its students, a run that needs nothing, and a student of a teacher that is done."""

    def job(name: str, *needs: str) -> Job:
        folder = tmp_path / "runs" / name
        return Job(("train", name), folder, folder / "log.txt", tuple(tmp_path / "runs" / need for need in needs))

    return [job("teacher"), job("a", "teacher"), job("b", "teacher"), job("alone"), job("c", "done")]


SYNC = Job(("sync",), Path("/runs"), Path("/runs/sync.log"))


def test_run_on_several_gpus_asks_for_them_and_their_cores(slurm, jobs):
    SlurmBackend(1).submit([replace(jobs[0], gpus=2)], SYNC)
    run, sync = slurm.calls("sbatch")
    assert options_of(run).items() >= {"gres": "gpu:2", "cpus-per-task": "8"}.items()
    assert "gres" not in options_of(sync)


def test_second_launch_submits_only_what_is_not_in_the_queue(slurm, jobs):
    SlurmBackend(2).submit(jobs, SYNC)
    first, _, sync = slurm.calls("sbatch")
    assert [command[-1] for command in tasks_of(first)] == ["teacher", "alone", "c"]
    slurm.queue([("101_0", "RUNNING", "node7", 0, first[-1]), ("103_0", "PENDING", "", 0, sync[-1])])
    SlurmBackend(2).submit(jobs, SYNC)
    students, others, last = slurm.calls("sbatch")[3:]
    assert ([command[-1] for command in tasks_of(students)], options_of(students)["dependency"]) == (
        ["a", "b"],
        "afterok:101_0",
    )
    assert [command[-1] for command in tasks_of(others)] == ["alone", "c"]
    assert options_of(last)["dependency"] == "afterany:104:105"
    slurm.queue([(f"{number}_0", "PENDING", "", 0, array[-1]) for number, array in ((104, students), (105, others))])
    SlurmBackend(2).submit(jobs[1:2], SYNC)
    assert len(slurm.calls("sbatch")) == 6


def test_refused_options_are_one_line_and_leave_nothing_in_the_queue(slurm, jobs, monkeypatch):
    monkeypatch.setenv("SLURM", "--partition=none")
    with pytest.raises(UserError, match=r"^sbatch: invalid partition specified: none; Batch job submission failed$"):
        SlurmBackend(2).submit(jobs, SYNC)
    assert slurm.calls("scancel") == [["101"]]
    monkeypatch.setenv("SLURM", "--comment='open")
    with pytest.raises(UserError, match=r"^SLURM=--comment='open: No closing quotation"):
        SlurmBackend(2).submit(jobs, SYNC)
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(UserError, match=r"^LAUNCHER=slurm: there is no sbatch here"):
        SlurmBackend(2)


def test_status_shows_the_queue_beside_the_runs(call, slurm, monkeypatch, tmp_path):
    runs = tmp_path / "runs"
    specs = [make_run(runs, make_spec(seed, epochs=3), state, 2) for seed, state in enumerate((RUNNING, INTERRUPTED))]
    specs.append(make_spec(2))
    RunFolder.of(specs[2], runs).create(specs[2])
    plan_of(*specs).save(runs)
    folders = [RunFolder.of(spec, runs) for spec in specs]
    SlurmBackend(2).submit([Job(("true",), folder.path, folder.log) for folder in folders], SYNC)
    tasks = slurm.calls("sbatch")[0][-1]
    slurm.queue([
        ("101_0", "RUNNING", "node7", 0, tasks),
        ("101_1", "PENDING", "", 2, tasks),
        ("101_2", "PENDING", "", 0, tasks),
        ("7_1", "PENDING", "", 0, "/elsewhere/0123456789abcdef.tasks"),
    ])  # fmt: skip
    output = call("experiments status")[1]
    rows = [[cell.strip() for cell in line.split("│")[2:5]] for line in output.splitlines() if line.startswith("│")]
    assert [" ".join(filter(None, lines)) for lines in zip(*rows, strict=True)] == [
        "running 0/3 on node7", "interrupted 2/3 pending, requeued 2x", "missing pending",
    ]  # fmt: skip
    monkeypatch.setenv("PATH", "/nowhere")
    output = call("experiments status")[1]
    assert output.count("Slurm's queue is not shown: squeue cannot be started") == 1
    assert "pending" not in output


def test_study_is_an_array_of_processes_on_a_database(call, slurm, monkeypatch, tmp_path):
    """SQLite stands for a server's database, which the check of the address demands."""
    tune = ("experiments tune", "--dataset", "digits", "--trials", "4", "--set", "width=4", *epoch_options(2))
    monkeypatch.setattr("experiments.commands.study_workers.SQLITE", "no address begins so")
    monkeypatch.setenv("OPTUNA_STORAGE", f"sqlite:///{tmp_path}/optuna.db")
    status, _, errors = call(*tune, "--launcher", "slurm", "--workers", "3", "--gpus", "2")
    assert (status, errors) == (0, "")
    study, _ = slurm.calls("sbatch")
    assert options_of(study).items() >= {"array": "0-2%3", "gres": "gpu:2"}.items()
    folders, logs, *commands = zip(*tasks_of(study), strict=True)
    assert len({*folders}) == len({*logs}) == 3
    command = " ".join(word for (word, *_) in commands)
    assert "-m experiments tune --dataset=digits --method=cs-kd" in command
    assert "--trials=4" in command and "--set=width=4" in command and "slurm" not in command.partition("tune")[2]


# What a task does: its job, and what the environment does to it meanwhile.


@pytest.fixture
def task(slurm, tmp_path):
    """Starts the script with a task whose command is Python code, and returns its process."""
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "spec.json").touch()

    def start(code: str) -> subprocess.Popen:
        other = shlex.join([str(tmp_path), "/dev/null", "false"])
        line = shlex.join(
            [str(folder), str(folder / "log.txt"), sys.executable, "-c", f"import signal, sys, time; {code}"]
        )
        (tmp_path / "list.tasks").write_text(f"{other}\n{line}\n")
        environment = os.environ | {"SLURM_ARRAY_TASK_ID": "1", "SLURM_JOB_ID": "12"}
        return subprocess.Popen(["bash", SCRIPT, tmp_path / "list.tasks"], env=environment, stdout=subprocess.PIPE)

    return start


HANDLE = f"signal.signal(signal.SIGTERM, lambda *_: sys.exit({EXIT_INTERRUPTED}))"
STOPS = f"{HANDLE}; print('ready', flush=True); time.sleep(60)"


def when_ready(process: subprocess.Popen, log: Path) -> subprocess.Popen:
    while not (log.exists() and "ready" in log.read_text()):
        assert process.poll() is None
        time.sleep(0.02)
    return process


@pytest.mark.parametrize("status", [EXIT_DONE, EXIT_FAILED])
def test_task_ends_as_its_run(task, tmp_path, status):
    assert task(f"print('trained'); sys.exit({status})").wait(30) == status
    assert (tmp_path / "run" / "log.txt").read_text() == "trained\n"


@pytest.mark.parametrize(("signal", "requeued"), [("USR1", [["requeue", "12"]]), ("TERM", [])])
def test_task_stops_its_run_and_queues_itself_again_only_before_the_time_limit(task, slurm, tmp_path, signal, requeued):
    process = when_ready(task(STOPS), tmp_path / "run" / "log.txt")
    subprocess.run(["kill", f"-{signal}", str(process.pid)], check=True)
    assert process.wait(30) == EXIT_INTERRUPTED
    calls = slurm.folder / "calls"
    assert (slurm.calls("scontrol") if calls.exists() else []) == requeued


def test_no_queue_is_asked_for_without_a_launch_on_slurm(call, slurm):
    assert queued_tasks() == {}
    assert not (slurm.folder / "calls").exists()
