"""The commands as a user types them, on the embedded digits, in processes of their own."""

import json
import re
import shlex
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from faults.disturbed import assert_same_results
from mlflow import MlflowClient
from place import Place

from experiments.runs.folder import RunFolder

ROOT = Path(__file__).resolve().parents[2]


TWO_EPOCHS = ("--set", "schedule.epochs=2", "--set", "schedule.milestones=[1]")


@pytest.fixture(scope="module")
def launched(tmp_path_factory):
    """A grid of both methods that has run, with one run in whose place another's checkpoint was beforehand."""
    place = Place(tmp_path_factory.mktemp("with space é"))
    status, output, errors = place.run("experiments grid", "demo", "--seeds", "0", "--dry-run", *TWO_EPOCHS)
    assert (status, errors) == (0, "")
    assert output.endswith("\nnot counted: digits (no data here: make data DATASET=digits)\n")
    assert "runs to do" not in output
    assert not place.folder.joinpath("runs").exists()
    assert place.run("experiments data", "digits")[0] == 0
    arguments = ("demo", "--seeds", "0", "1", "--workers", "2", *TWO_EPOCHS)
    _, output, _ = place.run("experiments grid", *arguments, "--launcher", "print")
    victim = next(folder for folder in place.folders() if folder.spec().name == "digits/resnet10/cs-kd/seed1")
    assert f"-m experiments worker {shlex.quote(str(victim.path))}" in output
    torch.save({"identity": "of another"}, victim.checkpoint)
    return place, arguments, victim, place.run("experiments grid", *arguments)


def experiment_of(client: MlflowClient):
    """The only experiment beside MLflow's own default."""
    (one,) = [experiment for experiment in client.search_experiments() if experiment.name != "Default"]
    assert "-custom-" in one.name
    return one


def test_a_failed_run_does_not_stop_the_others_and_makes_the_exit_status_non_zero(launched):
    place, _, victim, (status, output, errors) = launched
    assert (status, errors) == (1, "")
    assert "3 of 4 runs are done." in output
    assert f"digits/resnet10/cs-kd/seed1: failed: {victim.checkpoint} belongs to another run" in output
    assert "RETRY=1" in output
    assert sum(folder.weights.exists() for folder in place.folders()) == 3
    status, output, _ = place.run("experiments status", "demo")
    assert status == 0
    assert output.count("done ") == 3
    assert f"failed digits/resnet10/cs-kd/seed1: {victim.checkpoint} belongs to another run" in output


def test_what_is_tracked_is_what_the_run_folders_hold(launched):
    place, *_ = launched
    client = MlflowClient(place.uri)
    experiment = experiment_of(client)
    runs = client.search_runs([experiment.experiment_id], filter_string="tags.kind = 'run'")
    assert sorted(run.data.tags["state"] for run in runs) == ["done", "done", "done", "failed"]
    for run in (run for run in runs if run.data.tags["state"] == "done"):
        folder = RunFolder(place.runs / run.data.tags["run_key"])
        for record in folder.epochs():
            for name, value in record["metrics"].items():
                history = client.get_metric_history(run.info.run_id, name)
                assert [point.value for point in history if point.step == record["epoch"]] == [pytest.approx(value)]
        path = client.download_artifacts(run.info.run_id, "predictions.npz")
        with np.load(path) as arrays:
            assert np.array_equal(arrays["logits"], folder.load_predictions().logits)


def test_launching_again_trains_nothing_and_retry_runs_the_failed_one_anew(launched):
    place, arguments, victim, _ = launched
    before = {folder.path: folder.predictions.stat().st_mtime for folder in place.folders() if folder.weights.exists()}
    status, output, _ = place.run("experiments grid", *arguments)
    assert status == 1
    assert "0 of 4 runs to do" in output
    victim.checkpoint.unlink()
    status, output, _ = place.run("experiments grid", *arguments, "--retry")
    assert status == 0
    assert "1 of 4 runs to do" in output
    assert "4 of 4 runs are done." in output
    assert all(path.joinpath("predictions.npz").stat().st_mtime == when for path, when in before.items())


def test_tables_are_rebuilt_from_what_is_tracked_without_the_run_folders(launched):
    place, *_ = launched
    aside = place.runs.rename(place.folder / "aside")
    status, output, errors = place.run("analysis tables")
    aside.rename(place.runs)
    assert (status, errors) == (0, "")
    assert "digits" in output
    assert list(place.folder.glob("results/demo-custom-*/error.csv"))


def test_sync_rebuilds_the_tracking_from_the_run_folders(launched):
    place, *_ = launched
    other = f"sqlite:///{place.folder / 'other' / 'mlflow.db'}"
    place.environment["MLFLOW_TRACKING_URI"] = other
    status, output, _ = place.run("experiments sync")
    place.environment["MLFLOW_TRACKING_URI"] = place.uri
    assert status == 0
    assert re.search("demo-custom-[0-9a-f]{6}: 4 runs are tracked in", output)
    one, two = (
        {
            run.info.run_name: run.data.metrics
            for run in client.search_runs([experiment_of(client).experiment_id])
            if run.data.tags["state" if run.data.tags["kind"] == "run" else "kind"] in ("done", "cell")
        }
        for client in (MlflowClient(place.uri), MlflowClient(other))
    )
    assert one == two


def train(place: Place) -> subprocess.Popen:
    return place.start(
        "experiments train", "--dataset", "digits", "--method", "cs-kd", "--seed", "3",
        "--set", "schedule.epochs=60", "--set", "schedule.milestones=[30]",
    )  # fmt: skip


def wait_for_epochs(place: Place, count: int) -> RunFolder:
    until = time.monotonic() + 300
    while time.monotonic() < until:
        for folder in place.folders():
            if len(folder.epochs()) >= count:
                return folder
        time.sleep(0.02)
    raise AssertionError(f"no run reached {count} epochs")


def test_a_run_stopped_by_ctrl_c_and_then_killed_ends_with_the_undisturbed_runs_numbers(tmp_path):
    disturbed, undisturbed = Place(tmp_path / "a"), Place(tmp_path / "b")
    for place in (disturbed, undisturbed):
        assert place.run("experiments data", "digits")[0] == 0
    process = train(disturbed)
    folder = wait_for_epochs(disturbed, 2)
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=300)
    assert (process.returncode, errors) == (130, "")
    assert output.rstrip().endswith("stopped: the same command continues where this one ended")
    assert folder.state()["state"] == "interrupted"

    reached = len(folder.epochs())
    process = train(disturbed)
    wait_for_epochs(disturbed, reached + 3)
    process.kill()  # its worker notices and stops, too
    process.communicate()

    process = train(disturbed)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0
    assert "1 of 1 runs are done." in output
    assert "All is tracked in MLflow" in output

    # The undisturbed run does without MLflow: training needs it as little as Optuna.
    for package in ("mlflow", "optuna"):
        undisturbed.folder.joinpath("hidden", package).mkdir(parents=True)
        undisturbed.folder.joinpath("hidden", package, "__init__.py").write_text(
            f"raise ModuleNotFoundError('No module named {package}', name='{package}')"
        )
    undisturbed.environment["PYTHONPATH"] = str(undisturbed.folder / "hidden")
    reference = train(undisturbed)
    output, _ = reference.communicate(timeout=300)
    assert reference.returncode == 0
    assert "not all is tracked in MLflow (mlflow is not installed)" in output
    (other,) = undisturbed.folders()
    assert_same_results(folder, other)
    assert len(json.loads(folder.environment.read_text())["starts"]) == 3
    client = MlflowClient(disturbed.uri)
    experiment = experiment_of(client)
    (run,) = client.search_runs([experiment.experiment_id], filter_string="tags.kind = 'run'")
    steps = [point.step for point in client.get_metric_history(run.info.run_id, "train/loss")]
    assert steps == list(range(60))


def test_a_taught_run_has_its_teacher_trained_first_and_once(tmp_path):
    place = Place(tmp_path)
    arguments = (
        "table4",
        "--datasets",
        "digits",
        "--methods",
        "kd",
        "--seeds",
        "0",
        "1",
        "--workers",
        "2",
        *TWO_EPOCHS,
    )
    status, output, errors = place.run("experiments grid", *arguments)
    assert (status, errors) == (0, "")
    assert "3 of 3 runs are done." in output
    started = re.findall(r"(\S+): starts at epoch", output)
    assert started[0] == "digits/densenet41/cs-kd/seed0"
    assert sorted(started[1:]) == ["digits/resnet10/kd/seed0", "digits/resnet10/kd/seed1"]
    (teacher,) = (folder for folder in place.folders() if folder.spec().method == "cs-kd")
    students = [folder for folder in place.folders() if folder.spec().method == "kd"]
    assert {folder.spec().teacher.run_key for folder in students} == {teacher.path.name}
    assert all("train/teacher_kl" in folder.epochs()[-1]["metrics"] for folder in students)
    client = MlflowClient(place.uri)
    runs = client.search_runs([experiment_of(client).experiment_id], filter_string="tags.kind = 'run'")
    assert {run.data.params.get("teacher") for run in runs} == {None, teacher.path.name}
    assert place.run("experiments grid", *arguments)[1].count("0 of 3 runs to do") == 1


def test_a_teacher_that_fails_is_named_for_its_students(tmp_path):
    place = Place(tmp_path)
    diverging = ("--set", "schedule.lr=1e18", *TWO_EPOCHS)
    status, output, _ = place.run(
        "experiments grid", "table4", "--datasets", "digits", "--methods", "kd", "--seeds", "0", *diverging
    )
    assert status == 1
    assert "digits/densenet41/cs-kd/seed0: failed: " in output
    assert "digits/resnet10/kd/seed0: missing: its teacher, digits/densenet41/cs-kd/seed0, is not trained" in output


BAD = [
    ("experiments grid", ["table9"], "unknown grid 'table9': choose from demo"),
    ("experiments grid", ["table1", "--datasets", "cifar"], "unknown dataset 'cifar': choose from cifar100"),
    ("experiments grid", ["demo", "--methods", "cskd"], "unknown method 'cskd': choose from adacos"),
    ("experiments grid", ["demo", "--seeds", "0", "-1"], "seeds are from 0 to 1,000,000, not -1"),
    (
        "experiments train",
        ["--dataset", "digits", "--method", "cs-kd", "--seed", "-1"],
        "seeds are from 0 to 1,000,000",
    ),
    ("experiments grid", ["table3", "--methods", "mixup+adacos"], "adacos cannot be combined"),
    ("experiments grid", ["table3", "--methods", "all", "cs-kd"], "methods: 'all' stands alone: all cs-kd"),
    ("experiments grid", ["table3", "--methods", "adacos+mixup"], "adacos cannot be combined"),
    ("experiments grid", ["table4", "--set", "methods.kd.temperature=0"], "kd: temperature must be positive, not 0"),
    ("experiments grid", ["table4", "--set", "teacher.method=kd"], "teacher: kd needs a teacher itself"),
    ("experiments grid", ["table4", "--set", "teacher.architecture=vgg"], "unknown architecture 'vgg'"),
    ("analysis tables", ["--show", "errors"], "unknown table 'errors': choose from brier"),
    ("experiments grid", ["demo", "--profile", "mini"], "digits has no profile 'mini': choose from demo"),
    ("experiments grid", ["demo", "--workers", "0"], "WORKERS must be from 1 to 1000, not 0"),
    ("experiments grid", ["demo", "--launcher", "slurm"], "unknown launcher 'slurm': choose from local, print"),
    ("experiments grid", ["demo", "--set", "methods.cs-kd.temperature=-1"], "cs-kd: temperature must be positive"),
    ("experiments grid", ["demo", "--set", "widht=3"], "unknown key 'widht' (known: data"),
    ("experiments grid", ["demo", "--set", "methods.cs-kd.temperature=1e300"], "temperature must be at most 1,000,000"),
    ("experiments grid", ["demo", "--set", "schedule.lr=1e39"], "'schedule.lr': Input should be less than or equal"),
    ("experiments grid", ["demo", "--set", "width=!!int ''"], "the value, line 1 is not YAML: tags"),
    ("experiments grid", ["demo", "--set", "batch_size=199"], "'batch_size': 199 leaves a last batch of one"),
    ("experiments grid", ["demo", "--dry-run", "--set", "data.reader=digit"], "unknown dataset 'digit'"),
    ("experiments tune", ["--dataset", "digits", "--set", "subset={classes: 11, images_per_class: 4}"], "'subset': "),
    ("experiments train", ["--dataset", "digits", "--method", "cs"], "unknown method 'cs'"),
    ("experiments train", ["--dataset", "digit", "--method", "cs-kd"], "unknown dataset 'digit'"),
    ("experiments grid", ["demo", "--seeds", "a"], "argument --seeds: invalid int value: 'a': see python -m"),
    ("experiments grid", ["demo", "--architectures", "resnet18"], "digits: profile demo trains resnet10, not resnet18"),
    ("experiments grid", ["demo", "--set", "methods.cskd.temperature=1"], "unknown method 'cskd'"),
    ("experiments status", [], "no grid has been launched into"),
    ("experiments sync", [], "no grid has been launched into"),
    ("experiments data", ["cub"], "unknown dataset 'cub'"),
    ("analysis tables", [], "make demo"),
]


@pytest.mark.parametrize(("module", "arguments", "message"), BAD)
def test_bad_input_is_one_line_and_leaves_nothing_behind(call, tmp_path, module, arguments, message):
    status, _, errors = call(module, *arguments)
    assert status == 2
    assert errors.startswith("error: ")
    assert errors.count("\n") == 1
    assert message in errors
    assert not list(tmp_path.glob("runs/*"))
    assert not (tmp_path / "mlflow.db").exists()


@pytest.mark.parametrize("place", ["RUNS_DIR", "DATA_DIR", "MLFLOW_TRACKING_URI"])
def test_a_place_that_cannot_be_written_is_named(call, tmp_path, monkeypatch, place):
    assert call("experiments data", "digits")[0] == 0
    blocked = tmp_path / "a file"
    blocked.write_text("")
    prefix = "sqlite:///" if place == "MLFLOW_TRACKING_URI" else ""
    monkeypatch.setenv(place, f"{prefix}{blocked / 'below'}")
    status, _, errors = call("experiments grid", "demo", "--seeds", "0")
    assert status == 2
    assert str(blocked) in errors
    assert errors.count("\n") == 1


LAUNCHING = [
    ("RUNS_DIR", "experiments train", ["--dataset", "digits", "--method", "cs-kd"]),
    ("RUNS_DIR", "experiments tune", ["--dataset", "digits"]),
    ("RESULTS_DIR", "experiments grid", ["demo"]),
    ("RESULTS_DIR", "experiments tune", ["--dataset", "digits"]),
    ("RESULTS_DIR", "experiments ablate", ["--dataset", "digits"]),
    ("RESULTS_DIR", "experiments bench", []),
]


@pytest.mark.parametrize(("variable", "module", "arguments"), LAUNCHING)
@pytest.mark.parametrize("blocked", ["/proc/no", "/dev/null/no"])
def test_a_folder_that_cannot_be_written_is_named_before_hours_of_training(
    call, tmp_path, monkeypatch, variable, module, arguments, blocked
):
    monkeypatch.setenv(variable, blocked)
    status, output, errors = call(module, *arguments)
    assert (status, output) == (2, "")
    assert re.fullmatch(rf"error: {variable}={blocked} cannot be written \([\w ]+\): give another folder\n", errors)
    assert not list(tmp_path.iterdir())


COMMANDS = "bench grid run data status sync ui worker tune ablate tuned dashboard compare_samplers"


@pytest.mark.parametrize("module", COMMANDS.split())
def test_every_command_explains_itself(call, module):
    status, output, _ = call(f"experiments.{module}", "--help")
    assert status == 0
    assert f"python -m experiments.{module}" in output
