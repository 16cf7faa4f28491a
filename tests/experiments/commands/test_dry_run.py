"""Dry runs: what they print, and that they write nothing."""


def test_dry_run_of_a_grid_names_datasets_that_are_not_prepared(call, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    status, output, errors = call("experiments grid", "table1", "--datasets", "cub200", "dogs", "--dry-run")
    assert (status, errors) == (0, "")
    names = (f"{name} (not prepared: make data DATASET={name})" for name in ("cub200", "dogs"))
    assert output.splitlines()[-1] == f"not counted: {', '.join(names)}"
    assert "runs to do" not in output
    assert not list(tmp_path.iterdir())


def test_dry_run_of_a_grid_counts_its_runs(call, tmp_path):
    assert call("experiments data", "digits")[0] == 0
    output = call("experiments grid", "demo", "--dry-run")[1]
    assert "10 of 10 runs to do" in output
    assert "not counted" not in output
    assert not (tmp_path / "runs").exists()


def test_composite_has_one_name_whatever_the_order_of_its_parts(call):
    assert call("experiments data", "digits")[0] == 0
    for command, *arguments in (
        ("experiments train", "--dataset", "digits", "--method", "cs-kd+mixup", "--dry-run"),
        ("experiments grid", "demo", "--methods", "cross-entropy", "cs-kd+mixup", "--dry-run"),
        ("experiments tune", "--dataset", "digits", "--method", "cs-kd+mixup", "--dry-run"),
    ):
        status, output, errors = call(command, *arguments)
        assert (status, errors) == (0, "")
        assert "mixup+cs-kd" in output
        assert "cs-kd+mixup" not in output
    status, _, errors = call("experiments grid", "demo", "--methods", "cs-kd+mixup", "mixup+cs-kd", "--dry-run")
    assert (status, errors) == (2, "error: methods must be given, each once: mixup+cs-kd mixup+cs-kd\n")
