"""Invalid input gives an error of one line before anything is written."""

import pytest

from experiments.__main__ import COMMANDS

INVALID = [
    ("experiments grid", ["table9"], "unknown grid 'table9': choose from demo"),
    ("experiments grid", ["table1", "--datasets", "cifar"], "unknown dataset 'cifar': choose from cifar100"),
    (
        "experiments grid",
        ["table1", "--datasets", "cifar100", "digits"],
        "(cifar100: paper, digits: demo): give PROFILE",
    ),
    ("experiments grid", ["demo", "--methods", "cskd"], "unknown method 'cskd': choose from adacos"),
    ("experiments grid", ["demo", "--methods", "all", "cs-kd"], "methods: 'all' cannot be combined with other names"),
    ("experiments grid", ["demo", "--methods", "cs-kd+mixup", "mixup+cs-kd"], "each once: mixup+cs-kd mixup+cs-kd"),
    ("experiments grid", ["demo", "--architectures", "vgg"], "unknown architecture 'vgg': choose from densenet121"),
    ("experiments grid", ["demo", "--seeds", "1", "1"], "seeds must be given, each once: 1 1"),
    ("experiments grid", ["demo", "--seeds", "a"], "argument --seeds: invalid int value: 'a': see python -m"),
    ("experiments grid", ["table3", "--methods", "adacos+mixup"], "adacos cannot be combined"),
    ("experiments grid", ["table4", "--set", "teacher.method=kd"], "teacher: kd needs a teacher itself"),
    ("experiments grid", ["demo", "--profile", "mini"], "digits has no profile 'mini': choose from demo"),
    ("experiments grid", ["demo", "--workers", "0"], "WORKERS must be from 1 to 1000, not 0"),
    ("experiments grid", ["demo", "--launcher", "slurm"], "unknown launcher 'slurm': choose from local, print"),
    ("experiments grid", ["demo", "--set", "methods.cs-kd.temperature=-1"], "cs-kd: temperature must be positive"),
    ("experiments grid", ["demo", "--set", "widht=3"], "unknown key 'widht' (known: data"),
    ("experiments grid", ["demo", "--set", "schedule.epochs"], "write key=value, such as schedule.epochs=10"),
    ("experiments grid", ["demo", "--set", "schedule.lr=1e39"], "'schedule.lr': Input should be less than or equal"),
    ("experiments grid", ["demo", "--set", "width=!!int ''"], "the value, line 1 is not YAML: tags"),
    ("experiments grid", ["demo", "--set", "batch_size=199"], "'batch_size': 199 leaves a last batch of one"),
    ("experiments grid", ["demo", "--dry-run", "--set", "data.reader=digit"], "unknown dataset 'digit'"),
    ("experiments grid", ["demo", "--architectures", "resnet18"], "digits: profile demo trains resnet10, not resnet18"),
    ("experiments grid", ["demo", "--tuned"], "nothing tuned for digits, cs-kd, profile demo, resnet10: make tune"),
    (
        "experiments tune",
        ["--dataset", "digits", "--set", "subset={classes: 11, images_per_class: 4}"],
        "lower 'subset.classes'",
    ),
    ("experiments train", ["--dataset", "digits", "--method", "cs-kd", "--seed", "-1"], "seeds are from 0 to"),
    ("experiments train", ["--dataset", "digits", "--method", "cs"], "unknown method 'cs'"),
    ("experiments status", [], "no grid has been launched into"),
    ("experiments sync", [], "launch one first"),
    ("experiments data", ["cub"], "unknown dataset 'cub'"),
    ("analysis tables", [], "make demo"),
    ("analysis tables", ["--show", "errors"], "unknown table 'errors': choose from brier"),
]


@pytest.mark.parametrize(("command", "arguments", "message"), INVALID)
def test_invalid_input_is_one_line_and_leaves_nothing_behind(call, tmp_path, command, arguments, message):
    status, _, errors = call(command, *arguments)
    assert status == 2
    assert errors.startswith("error: ")
    assert errors.count("\n") == 1
    assert message in errors
    assert not list(tmp_path.glob("runs/*"))
    assert not (tmp_path / "mlflow.db").exists()


@pytest.mark.parametrize(
    ("variable", "command", "arguments"),
    [
        ("RUNS_DIR", "experiments train", ["--dataset", "digits", "--method", "cs-kd"]),
        ("RUNS_DIR", "experiments tune", ["--dataset", "digits"]),
        ("RESULTS_DIR", "experiments grid", ["demo"]),
        ("RESULTS_DIR", "experiments ablate", ["--dataset", "digits"]),
        ("RESULTS_DIR", "experiments bench", []),
        ("DATA_DIR", "experiments data", ["digits"]),
        ("MLFLOW_TRACKING_URI", "analysis tables", []),
    ],
)
def test_unwritable_folder_is_named_before_any_training(call, tmp_path, monkeypatch, variable, command, arguments):
    prefix = "sqlite:///" if variable == "MLFLOW_TRACKING_URI" else ""
    monkeypatch.setenv(variable, f"{prefix}/dev/null/no")
    status, _, errors = call(command, *arguments)
    assert status == 2
    assert "/dev/null/no" in errors
    assert errors.startswith("error: ")
    assert errors.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_a_help_text(call, command):
    status, output, _ = call(f"experiments {command}", "--help")
    assert status == 0
    assert f"usage: python -m experiments {command}" in output
