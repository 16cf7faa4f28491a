"""The status of a grid on narrow terminals, and of a grid that was not launched."""

from experiments.runs.plan import Cell, Plan


def save_plan(runs_dir, names: list[str], seeds: int) -> None:
    keys = {name: name.replace("/", "-") for name in names}
    fields = {"order": 0, "comparable": True}
    cells = [Cell(name=name, key=key, runs=dict.fromkeys(range(seeds), key), **fields) for name, key in keys.items()]
    Plan(experiment="demo", grid="demo", title="", profile="demo", cells=cells).save(runs_dir)


def test_cells_are_distinguishable_on_80_columns(call, tmp_path, monkeypatch):
    names = ["cifar100/resnet18/cross-entropy", "tinyimagenet/resnet18/label-smoothing+cs-kd"]
    save_plan(tmp_path / "runs", names, seeds=3)
    monkeypatch.setenv("COLUMNS", "80")
    exit_status, output, errors = call("experiments status")
    assert (exit_status, errors) == (0, "")
    lines = output.splitlines()
    assert lines[0].strip() == "demo: resnet18"
    assert lines[1].endswith("┓")  # the table is not cut off
    shown = [line.split()[1] for line in lines if "missing" in line]
    assert shown == ["cifar100/cross-entropy", "tinyimagenet/label-smoothing+cs-kd"]


def test_grid_that_was_not_launched_is_missing(call, tmp_path):
    save_plan(tmp_path / "runs", ["digits/resnet10/cs-kd"], seeds=1)
    message = f"table1 has not been launched into {tmp_path / 'runs'}: all its runs are missing\n"
    assert call("experiments status", "table1") == (0, message, "")
