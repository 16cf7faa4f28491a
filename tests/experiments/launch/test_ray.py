"""The backend of Ray, with a module ``ray`` that exists only in memory: its tasks end when the test says so."""

import signal
import sys
import threading
import time
from dataclasses import replace
from types import ModuleType, SimpleNamespace

import pytest

from cskd.utils.errors import UserError
from experiments.launch.backends import Exit, Job
from experiments.launch.backends import ray as backend_module
from experiments.launch.backends.base import EXIT_DONE, EXIT_FAILED, EXIT_INTERRUPTED
from experiments.launch.backends.ray import MAX_LOSSES, SETTINGS, RayBackend, _make_run, read_settings
from experiments.runs.folder import DONE, FAILED, INTERRUPTED, RUNNING, RunFolder

CPU, GPU = {"CPU": 6.0}, {"CPU": 16.0, "GPU": 4.0}


class Errors(SimpleNamespace):
    """ray.exceptions"""

    class RayError(Exception):
        pass

    class TaskCancelledError(RayError):
        pass

    class OutOfMemoryError(RayError):
        pass

    class RayTaskError(RayError):
        pass


class FakeRay(ModuleType):
    """A cluster. ``tasks`` are the tasks of jobs, with their options; ``result`` is the status or exception of one."""

    exceptions = Errors

    def __init__(self):
        super().__init__("ray")
        self.machines, self.tasks, self.sees, self.environment = [CPU], [], [], read_settings()

    def init(self, address, **options):
        if address != "auto":
            raise ConnectionError("nobody there")

    def nodes(self):
        description = {"Alive": True, "NodeManagerHostname": "one", "NodeID": "1"}
        return [description | {"Resources": resources} for resources in self.machines]

    def remote(self, **options):
        return lambda function: FakeFunction(self, function, options)

    def wait(self, references, timeout):
        return [one for one in references if one.result is not None], []

    def get(self, reference, timeout=None):
        if isinstance(reference.result, Exception):
            raise reference.result
        return reference.result

    def cancel(self, reference, force=False):
        reference.cancelled.append(force)


class FakeFunction:
    def __init__(self, ray, function, options):
        self.ray, self.function, self.given = ray, function, options

    def options(self, **more):
        return FakeFunction(self.ray, self.function, self.given | more)

    def remote(self, *arguments):
        task = SimpleNamespace(arguments=arguments, options=self.given, result=None, cancelled=[])
        if self.function.__name__ == "look":
            task.result = self.function(*arguments)[0] + self.ray.sees, self.ray.environment
        else:
            self.ray.tasks.append(task)
        return task


@pytest.fixture
def ray(tmp_path, monkeypatch):
    module = FakeRay()
    monkeypatch.setitem(sys.modules, "ray", module)
    strategies = ModuleType("ray.util.scheduling_strategies")
    strategies.NodeAffinitySchedulingStrategy = lambda node, soft: node
    monkeypatch.setitem(sys.modules, strategies.__name__, strategies)
    monkeypatch.setenv("RUNS_DIR", str(tmp_path / "runs"))
    monkeypatch.setenv("RAY_ADDRESS", "")
    monkeypatch.setattr(backend_module, "LOOK_SECONDS", 0.0)
    for name in read_settings():
        monkeypatch.setenv(name, "")  # restored afterwards
    return module


@pytest.fixture
def job(tmp_path):
    folder = tmp_path / "runs" / "0"
    folder.mkdir(parents=True)
    return Job(("python",), folder, folder / "log.txt")


@pytest.mark.parametrize(
    ("machines", "capacity", "options", "threads"),
    [
        ([CPU, CPU], 4, {"num_cpus": 3}, "3"),
        ([GPU, CPU], 8, {"num_cpus": 2, "num_gpus": 0.5}, "2"),  # a machine without GPU gets no job
        ([{"CPU": 1.0}], 2, {"num_cpus": 0.5}, "1"),
    ],
)
def test_workers_share_each_gpu_or_else_each_machine(ray, job, machines, capacity, options, threads):
    ray.machines = machines
    backend = RayBackend(2)
    backend.start(job, 0)
    (task,) = ray.tasks
    assert backend.capacity == capacity
    assert task.options == {"max_retries": 0, "name": "0"} | options
    assert task.arguments == (["python", "--threads", threads], str(job.log))


def test_run_on_several_gpus_has_them_for_itself(ray, job):
    ray.machines = [GPU]
    RayBackend(2).start(replace(job, gpus=4), 0)
    assert ray.tasks[0].options == {"max_retries": 0, "name": "0", "num_cpus": 8, "num_gpus": 4}
    assert ray.tasks[0].arguments[0] == ["python", "--threads", "8"]


def test_machine_without_the_shared_folders_is_refused(ray, tmp_path):
    ray.sees = ["/runs/ray.1"]
    message = "^the Ray machine one does not see /runs/ray.1 of this machine: put RUNS_DIR, .* share"
    with pytest.raises(UserError, match=message):
        RayBackend(1)
    assert not list((tmp_path / "runs").iterdir())


def test_machine_without_the_settings_is_named(ray, capsys):
    RayBackend(1)
    assert capsys.readouterr().err == ""
    ray.environment = {}
    RayBackend(1)
    warning = f"warning: the Ray machine one was not started with the settings of {SETTINGS}: a cut network"
    assert capsys.readouterr().err == f"{warning} may be noticed late\n"


def test_missing_ray_and_missing_cluster_are_one_line(ray, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "host:6379")
    with pytest.raises(UserError, match=r"^RAY_ADDRESS=host:6379: no Ray cluster can be used \(nobody there\): start"):
        RayBackend(1)
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match="Ray is not installed: run make setup-clusters"):
        RayBackend(1)


def test_lost_task_starts_again_a_few_times(ray, job, capsys):
    backend = RayBackend(1)
    handle = backend.start(job, 0)
    for losses in range(MAX_LOSSES):
        assert backend.poll(handle) is None
        ray.tasks[-1].result = Errors.RayError("the machine died")
        assert backend.poll(handle) is None
        assert len(ray.tasks) == losses + 2
    ray.tasks[-1].result = Errors.RayError("the machine died")
    assert backend.poll(handle) == Exit(-signal.SIGKILL)
    assert capsys.readouterr().err.count("lost (the machine died), starts again\n") == MAX_LOSSES


@pytest.mark.parametrize(
    ("result", "ended"),
    [
        (EXIT_DONE, Exit(EXIT_DONE)),
        (Errors.TaskCancelledError(), Exit(EXIT_INTERRUPTED)),
        (Errors.OutOfMemoryError(), Exit(-signal.SIGKILL, out_of_memory=True)),
        (Errors.RayTaskError("no such file: env"), Exit(EXIT_FAILED)),
    ],
)
def test_end_of_a_task_is_that_of_its_process(ray, job, result, ended):
    backend = RayBackend(1)
    handle = backend.start(job, 0)
    ray.tasks[0].result = result
    assert backend.poll(handle) == ended
    assert len(ray.tasks) == 1
    if ended == Exit(EXIT_FAILED):
        assert job.log.read_text() == "no such file: env\n"


def test_stopped_task_is_cancelled_and_never_starts_again(ray, job):
    backend = RayBackend(1)
    handle = backend.start(job, 0)
    backend.stop(handle, signal.SIGTERM)
    backend.stop(handle, signal.SIGKILL)
    assert ray.tasks[0].cancelled == [False, True]
    ray.tasks[0].result = Errors.RayError("the machine died")
    assert backend.poll(handle) == Exit(-signal.SIGKILL)
    assert len(ray.tasks) == 1


ENDS = [(DONE, Exit(EXIT_DONE)), (FAILED, Exit(EXIT_FAILED)), (INTERRUPTED, None)]


@pytest.mark.parametrize(("state", "ended"), ENDS)
def test_folder_decides_if_ray_learns_nothing(ray, job, state, ended):
    """The first look may be just before Ray's answer, so two must agree. An earlier process's end does not count."""
    folder = RunFolder(job.folder)
    folder.write_state(state, reason="of an earlier process")
    backend = RayBackend(1)
    handle = backend.start(job, 0)
    assert [backend.poll(handle) for _ in range(3)] == [None] * 3
    folder.write_state(RUNNING)
    with folder.leased():
        folder.write_state(state, reason="it ended")
        assert [backend.poll(handle) for _ in range(3)] == [None] * 3
    assert (backend.poll(handle), ray.tasks[0].cancelled) == (None, [])
    assert backend.poll(handle) == ended
    assert ray.tasks[0].cancelled == [True]
    assert len(ray.tasks) == (2 if ended is None else 1)


def test_cancelled_process_gets_sigterm(tmp_path):
    """The task is cancelled by a KeyboardInterrupt in the main thread."""
    log, run = tmp_path / "log.txt", _make_run()
    assert run(["sh", "-c", "echo one; exit 3"], str(log)) == 3
    trap = "trap 'echo stopped; exit 4' TERM; echo ready; while :; do sleep 0.05; done"

    def interrupt():
        while "ready" not in log.read_text():
            time.sleep(0.02)
        time.sleep(0.5)  # by now the main thread waits for the process, not for its start
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    assert run(["sh", "-c", trap], str(log)) == 4
    thread.join()
    assert log.read_text() == "one\nready\nstopped\n"
