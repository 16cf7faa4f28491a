"""What a study leaves: a table of its trials, figures, and the tuned values with their provenance."""

import csv
import datetime
import io
from pathlib import Path

from cskd.plots import save_figure
from cskd.utils.files import atomic_write, write_errors
from experiments.config import tuned
from experiments.runs.folder import RunFolder
from experiments.tuning.figures import study_figures
from experiments.tuning.heatmap import grid_points, heat_map, is_plane
from experiments.tuning.setup import StudyConfig
from experiments.tuning.space import Point
from experiments.tuning.storage import storage_address
from experiments.tuning.trial import COMPLETE, Trial, best_of, pareto_front


def write(subject: StudyConfig, trials: list[Trial], commit: tuple[str, bool], folder: Path) -> None:
    """Everything a study leaves, from its trials. ``commit``: (hash, dirty) of what tells the best one."""
    with write_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    _write_csv(folder / "trials.csv", trial_rows(subject, trials))
    place = subject.runs({})[0].folder.path.parent
    _write_csv(folder / "runs.csv", run_rows(trials, place))
    plane = is_plane(subject.space)
    figures = study_figures(storage_address(), subject.name, subject.recipe_point(), contour=not plane)
    if plane:
        points = grid_points(subject.space, trials, place, subject.recipe_point())
        _write_csv(folder / "heatmap.csv", [point.row() for point in points])
        if any(point.mean for point in points):
            figures["heatmap"] = heat_map(_heading(subject), subject.space, points)
    for name, figure in figures.items():
        save_figure(figure, folder / f"{name}.png")
    found = make_found(subject, trials, commit)
    if found is not None and why_not_written(subject) is None:
        tuned.save(subject.dataset, subject.method, subject.profile, subject.architecture, found)


def why_not_written(subject: StudyConfig) -> str | None:
    """Why the best trial does not become the tuned values; None where it does."""
    if subject.ablation:
        return f"an ablation measures; make tune DATASET={subject.dataset} METHOD={subject.method} chooses"
    if subject.overrides:
        return f"with {' '.join(subject.overrides)} it is not the recipe's"
    return None


def _heading(subject: StudyConfig) -> str:
    count = len(subject.seeds)
    seeds = "one seed" if count == 1 else f"mean ± std (ddof=1) of {count} seeds"
    return f"{subject.name}: {seeds}, {subject.validation_images:,} validation images"


def make_found(subject: StudyConfig, trials: list[Trial], commit: tuple[str, bool]) -> tuned.TunedParameters | None:
    """The best trial with its provenance; None before there is one, and of two objectives: they have no best."""
    best = best_of(trials)
    if best is None:
        return None
    recipe, teacher = at(trials, subject.recipe_point()), subject.teacher()
    return tuned.TunedParameters(
        parameters=best.parameters,
        objective=subject.objectives[0],
        value=best.values[0],
        recipe_parameters=subject.recipe_point(),
        recipe_value=recipe.values[0] if recipe else None,
        study=subject.name,
        trial=best.number,
        trials=sum(trial.state == COMPLETE for trial in trials),
        seeds=list(subject.seeds),
        split_digest=subject.validation.indices_digest,
        data_digest=subject.data.digest,
        git_commit=commit[0],
        git_dirty=commit[1],
        date=f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d}",
        teacher=f"{teacher.spec.name}, run {teacher.spec.run_key}" if teacher else "",
    )


def at(trials: list[Trial], point: Point) -> Trial | None:
    """The complete trial with these hyper-parameters."""
    return next((one for one in trials if one.state == COMPLETE and one.parameters == point), None)


def message(subject: StudyConfig, trials: list[Trial]) -> list[str]:
    """What a user reads at the end, a line each."""

    def line(trial: Trial) -> str:
        values = ", ".join(f"{name} {value:.4g}" for name, value in zip(subject.objectives, trial.values, strict=True))
        point = ", ".join(f"{name} {value:.4g}" for name, value in trial.parameters.items())
        return f"{point}: {values} (trial {trial.number})"

    if len(subject.objectives) > 1:
        return ["no single best of two objectives; those that none beats in both:", *map(line, pareto_front(trials))]
    best = best_of(trials)
    if best is None:
        return []
    lines = [f"best on the validation split: {line(best)}"]
    recipe = at(trials, subject.recipe_point())
    if recipe is not None:
        lines.append(f"the recipe's setting: {line(recipe)}")
    why = why_not_written(subject)
    if why is not None:
        return [*lines, f"not written as tuned values: {why}"]
    path = tuned.tuned_file(subject.dataset, subject.method)
    return [*lines, f"written to {path}: grids use it with TUNED=1"]


def trial_rows(subject: StudyConfig, trials: list[Trial]) -> list[dict]:
    """A row a trial: what it was, how it ended, what was measured on the validation split."""
    return [
        {
            "trial": trial.number,
            "state": trial.state,
            **{name: trial.parameters.get(name) for name in subject.space.parameters},
            **{name: trial.metrics.get(name) for name in ("top1_error", "top5_error", "nll", "brier", "ece")},
            "seeds": " ".join(map(str, trial.runs)),
            "run_keys": " ".join(trial.runs.values()),
            "reason": trial.reason,
        }
        for trial in trials
    ]


def run_rows(trials: list[Trial], runs_dir: Path) -> list[dict]:
    """A row a run of a complete trial: the parameters, the seed, the last epoch, and the error after each tenth."""
    rows = []
    for trial in (trial for trial in trials if trial.state == COMPLETE):
        for seed, key in trial.runs.items():
            folder = RunFolder(runs_dir / key)
            records, schedule = folder.epochs(), folder.spec().settings.schedule
            last = records[-1]["metrics"]
            steps = sorted({round(len(records) * tenth / 10) for tenth in range(1, 11)} - {0})
            rows.append(
                {
                    **trial.parameters,
                    "seed": seed,
                    "error": last["validation/top1_error"],
                    "nll": last["validation/nll"],
                    "ece": last["validation/ece"],
                    "milestone": schedule.milestones[0] if schedule.milestones else len(records),
                    **{f"error_e{step}": records[step - 1]["metrics"]["validation/top1_error"] for step in steps},
                }
            )
    return rows


def _write_csv(path: Path, rows: list[dict]) -> None:
    text = io.StringIO()
    if rows:
        writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    with atomic_write(path) as file:
        file.write(text.getvalue().encode())
