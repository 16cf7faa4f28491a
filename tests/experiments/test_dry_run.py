"""What dry runs print."""

def test_a_sum_has_one_name_in_whatever_order_its_parts_are_given(call):
    assert call("experiments data", "digits")[0] == 0
    for module, *arguments in (
        ("experiments train", "--dataset", "digits", "--method", "cs-kd+mixup", "--dry-run"),
        ("experiments grid", "demo", "--methods", "cross-entropy", "cs-kd+mixup", "--dry-run"),
        ("experiments tune", "--dataset", "digits", "--method", "cs-kd+mixup", "--dry-run"),
    ):
        status, output, errors = call(module, *arguments)
        assert (status, errors) == (0, "")
        assert "mixup+cs-kd" in output
        assert "cs-kd+mixup" not in output
    status, _, errors = call("experiments grid", "demo", "--methods", "cs-kd+mixup", "mixup+cs-kd", "--dry-run")
    assert (status, errors) == (2, "error: methods must be given, each once: mixup+cs-kd mixup+cs-kd\n")


def test_a_plan_says_which_datasets_its_total_leaves_out(call, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    status, output, errors = call("experiments grid", "table1", "--datasets", "cub200", "dogs", "--dry-run")
    assert (status, errors) == (0, "")
    message = (f"{name} (no data here: make data DATASET={name})" for name in ("cub200", "dogs"))
    assert output.splitlines()[-1] == f"not counted: {', '.join(message)}"
    assert "0 of 0" not in output
    assert call("experiments data", "digits")[0] == 0
    output = call("experiments grid", "demo", "--dry-run")[1]
    assert "10 of 10 runs to do" in output
    assert "\nnot counted" not in output
