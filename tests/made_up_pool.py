"""Deprecated: use ``builders``. These names stay until the tests of tables and report use it."""

import dataclasses

import numpy as np
from builders import COMMIT, MACHINE, START, make_experiment, make_pool
from mlflow import MlflowClient
from mlflow.entities import Metric, Param


def made_up_pool(cells, profile="paper", settings=None, experiment="table1"):
    return make_pool(cells, profile, name=experiment, settings=settings)


def made_up_experiment(cells, profile, settings, name):
    return make_experiment(cells, name, profile, settings)


@dataclasses.dataclass
class MadeUp:
    """Tracks cells and runs of one experiment, as a launched grid does."""

    client: MlflowClient
    folder: object
    name: str
    profile: str
    settings: dict
    comparable: str = "yes"  # or "no: " and the reason

    def __post_init__(self):
        location = (self.folder / "mlartifacts" / self.name).as_uri()
        tags = {"experiment": self.name, "tuned": "false", "overrides": "[]", "launched": "0"}
        self.id = self.client.create_experiment(self.name, artifact_location=location, tags=tags)
        self.cells = 0

    def cell(self, dataset, method, *, seeds="0 1 2", architecture="resnet18", version="", **tags):
        name = f"{dataset}/{architecture}/{method}"
        tags = {
            "kind": "cell",
            "cell_key": f"{name}{version}",
            "grid": self.name.split("-")[0],
            "profile": self.profile,
            "dataset": dataset,
            "architecture": architecture,
            "method": method,
            "seeds_planned": seeds,
            "grid_order": str(self.cells),
            "superseded": "false",
        } | tags
        verdict = tags.pop("comparable_with_paper", self.comparable)
        tags |= {"comparable": "true" if verdict == "yes" else "false"}
        tags |= {"comparable_reason": "" if verdict == "yes" else verdict.removeprefix("no: ")}
        self.cells += 1
        run = self.client.create_run(self.id, start_time=START, run_name=name, tags=tags)
        return run.info.run_id, tags

    def run(self, cell, seed, error=None, ece=None, *, state="done", drop=(), metrics=None, predictions=True, **tags):
        """A run; one that is done has metrics of two epochs around ``error`` and ``ece``, and predictions."""
        parent, of_cell = cell
        shared = {
            tag: of_cell[tag]
            for tag in ("cell_key", "grid", "profile", "dataset", "architecture", "method", "comparable", "comparable_reason")
        }
        tags = (
            shared
            | {
                "kind": "run",
                "run_key": f"{shared['cell_key']}:{seed}",
                "mlflow.parentRunId": parent,
                "seed": str(seed),
                "state": state,
                "git_commit": COMMIT,
                "git_dirty": "false",
                "machine": MACHINE,
                "device": "cpu",
                "threads": "1",
                "compiled": "false",
                "precision": "fp32",
            }
            | tags
        )
        name = f"{shared['dataset']}/{shared['architecture']}/{shared['method']}/seed{seed}"
        started = START + 3_600_000 * seed
        run_id = self.client.create_run(self.id, start_time=started, run_name=name, tags=tags).info.run_id
        params = [Param(key, str(value)) for key, value in self.settings.items()]
        tracked = []
        if state == "done":
            last = {"top1_error": error, "top5_error": error / 3, "nll": error / 20, "brier": error / 60, "ece": ece}
            epochs = [(0, {f"test/{key}": 2 * value for key, value in last.items()})]
            epochs.append(
                (1, {f"test/{key}": value for key, value in last.items()} | {"test/recall_at_1": 100 - error})
            )
            single = {f"best/{key}": value - 0.125 for key, value in last.items()}
            single |= {"best/epoch": 1, "minutes": 1.5 + seed}
            epochs.append((0, single))
            other = metrics or {}
            for step, values in epochs:
                tracked += [
                    Metric(key, other.get(key, value), started, step)
                    for key, value in values.items()
                    if key not in drop
                ]
        self.client.log_batch(run_id, metrics=tracked, params=params)
        if state == "done" and predictions:
            self.save_predictions(run_id, seed, scale=4 if shared["method"] == "cross-entropy" else 1.5)
        ended = {"done": "FINISHED", "failed": "FAILED", "interrupted": "KILLED"}.get(state)
        if ended:
            self.client.set_terminated(run_id, ended, started + 90_000)
        return run_id

    def save_predictions(self, run_id, seed, scale):
        """As log_artifact would have put them; the legacy generator gives the same numbers in every version."""
        random = np.random.RandomState(seed)
        labels = random.randint(10, size=200)
        logits = random.standard_normal((200, 10))
        logits[np.arange(200), labels] += 1.5
        folder = self.folder / "mlartifacts" / self.name / run_id / "artifacts"
        folder.mkdir(parents=True)
        arrays = {"logits": scale * logits, "features": random.standard_normal((200, 4))}
        arrays = {key: value.astype(np.float32) for key, value in arrays.items()}
        np.savez(folder / "predictions.npz", labels=labels, **arrays)
