"""What is recorded about the machine."""

import torch

from experiments.runs.environment import describe


def test_device_threads_and_precision_are_separate_facts():
    facts = describe(torch.device("cpu"), "bf16", compiled=True)
    assert (facts["device"], facts["precision"], facts["compiled"]) == ("cpu", "bf16", True)
    assert facts["threads"] == torch.get_num_threads()
