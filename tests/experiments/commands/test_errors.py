"""Invalid input gives an error of one line before anything is written."""

import pytest

from experiments.__main__ import COMMANDS

DIGITS = ["--dataset", "digits"]
INVALID = [
    ("grid", ["table1", "--datasets", "cifar"], "unknown dataset 'cifar': did you mean cifar100?"),
    ("grid", ["table1", "--datasets", "cifar100", "digits"], "(cifar100: paper, digits: demo): give PROFILE"),
    ("grid", ["demo", "--methods", "cskd"], "unknown method 'cskd': did you mean cs-kd?"),
    ("grid", ["demo", "--methods", "all", "cs-kd"], "methods: 'all' cannot be combined with other names"),
    ("grid", ["demo", "--architectures", "resnet18"], "digits: profile demo trains resnet10, not resnet18"),
    ("grid", ["demo", "--profile", "mini"], "digits has no profile 'mini': choose from demo"),
    ("grid", ["demo", "--launcher", "lokal"], "unknown launcher 'lokal': did you mean local?"),
    ("grid", ["demo", "--set", "widht=3"], "unknown key 'widht' (did you mean width? known: data"),
    ("grid", ["demo", "--set", "schedule.epochs"], "write key=value, such as schedule.epochs=10"),
    ("grid", ["demo", "--set", "batch_size=199"], "'batch_size': 199 leaves a last batch of one"),
    ("grid", ["demo", "--gpus", "4000"], "GPUS=4000: this machine has "),
    ("grid", ["demo", "--set", "replicas=26"], "batch_size 50 is too small for replicas 26"),
    ("grid", ["demo", "--tables", "eror"], "unknown table 'eror': did you mean error?"),
    ("grid", ["demo", "--seeds", "0-4"], "'0-4' is not a whole number; list each seed, such as 0 1 2"),
    ("grid", ["table1", "--profile", "small"], 'dogs, mit67: give DATASETS="cifar100"'),
    ("grid", ["demo", "--tuned"], "nothing tuned for digits, cs-kd, profile demo, resnet10: make tune"),
    ("tune", [*DIGITS, "--set", "subset={classes: 11, images_per_class: 4}"], "lower 'subset.classes'"),
    ("train", [*DIGITS, "--method", "cs-kd", "--seed", "-1"], "seeds are from 0 to"),
    ("status", [], "no grid has been launched into"),
    ("status", ["table9"], "unknown grid 'table9'"),
    ("sync", [], "launch one first"),
    ("bench", ["--parts", "step"], "unknown part 'step'"),
    ("bench", ["--parts", "reference"], "give REFERENCE=<folder>"),
    ("bench", ["--datasets", "cifar100", "--parts", "steps", "profile"], "cifar100 is not prepared"),
    ("bench", ["--parts", "reference", "--set", "width=8", "--reference", "."], "the released code"),
    ("ui", ["--port", "65536"], "65536 is not a port: give one from 1 to 65535"),
]


@pytest.mark.parametrize(("command", "arguments", "message"), INVALID)
def test_invalid_input_is_one_line_and_leaves_nothing_behind(call, tmp_path, command, arguments, message):
    status, _, errors = call(f"experiments {command}", *arguments)
    assert (status, errors.count("\n")) == (2, 1)
    assert errors.startswith("error: ")
    assert message in errors
    assert not list(tmp_path.glob("runs/*"))
    assert not (tmp_path / "mlflow.db").exists()


@pytest.mark.parametrize(
    ("variable", "command", "arguments"),
    [
        ("RUNS_DIR", "experiments train", [*DIGITS, "--method", "cs-kd"]),
        ("RESULTS_DIR", "experiments grid", ["demo"]),
        ("RESULTS_DIR", "experiments bench", []),
        ("DATA_DIR", "experiments data", ["digits"]),
    ],
)
def test_unwritable_folder_is_named_before_any_training(call, tmp_path, monkeypatch, variable, command, arguments):
    monkeypatch.setenv(variable, "/dev/null/no")
    status, _, errors = call(command, *arguments)
    assert (status, errors.count("\n")) == (2, 1)
    assert errors.startswith("error: ")
    assert "/dev/null/no" in errors
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_a_help_text(call, command):
    status, output, _ = call(f"experiments {command}", "--help")
    assert status == 0
    assert f"usage: python -m experiments {command}" in output
