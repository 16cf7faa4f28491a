"""The results of a study: tables and figures in a folder, the tuned values, and a summary in lines."""

import csv
import datetime
import io
from pathlib import Path
from typing import Any

from cskd.utils.files import atomic_write, write_errors
from cskd.utils.numbers import MEAN_STD, number_text
from experiments.config import tuned
from experiments.config.tuned import TunedParameters
from experiments.tuning.config import StudyConfig
from experiments.tuning.noise import spread_within_noise
from experiments.tuning.space import SPACES, Point
from experiments.tuning.trial import (
    COMPLETE,
    OBJECTIVES,
    Trial,
    best_of,
    format_objectives,
    format_point,
    pareto_front,
    unit_of,
)


def write_results(config: StudyConfig, address: str, trials: list[Trial], source: dict[str, Any], folder: Path) -> None:
    """Write the study's tables and figures to ``folder``, and its best trial to the tuned values.

    address: the address of the storage. source: the version of the running code, as from ``describe_source``.
    """
    from cskd.plots import save_figure  # noqa: PLC0415 - imports matplotlib, as the next one does
    from experiments.tuning.figures import grid_rows, heat_map, study_figures  # noqa: PLC0415

    with write_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    runs_dir = config.runs({})[0].folder.path.parent
    recipe_point = config.recipe_point()
    _write_csv(folder / "trials.csv", trial_rows(config, trials))
    figures = study_figures(address, config.name, recipe_point, contour=not config.space.is_plane)
    if config.space.is_plane:
        rows = grid_rows(config.space, trials, runs_dir, recipe_point)
        _write_csv(folder / "heatmap.csv", rows)
        if any(trial.metrics for trial in trials):
            count = len(config.seeds)
            seeds = "one seed" if count == 1 else f"{MEAN_STD} of {count} seeds"
            title = f"{config.name}: {seeds}, {config.validation_images:,} validation images"
            figures["heatmap"] = heat_map(title, config.space, rows)
    for name, figure in figures.items():
        save_figure(figure, folder / f"{name}.png")
    best = tuned_parameters(config, trials, source)
    if best is not None and not reason_not_saved(config):
        tuned.save(best)


def reason_not_saved(config: StudyConfig) -> str:
    """Return why the best trial does not become the tuned values, "" if it does."""
    options = config.options
    if options.ablation:
        return f"an ablation saves none: run make tune DATASET={options.dataset} METHOD={options.method}"
    if options.overrides:
        return f"{' '.join(options.overrides)} differs from the recipe"
    return ""


def tuned_parameters(config: StudyConfig, trials: list[Trial], source: dict[str, Any]) -> TunedParameters | None:
    """Return the best trial with its source. None without a complete trial, and for two objectives."""
    best = best_of(trials)
    if best is None:
        return None
    recipe, teacher = find_complete(trials, config.recipe_point()), config.teacher()
    return TunedParameters(
        dataset=config.options.dataset,
        method=config.options.method,
        profile=config.profile,
        architecture=config.architecture,
        parameters=best.parameters,
        objective=config.objectives[0],
        value=best.values[0],
        recipe_parameters=config.recipe_point(),
        recipe_value=recipe.values[0] if recipe else None,
        study=config.name,
        trial=best.number,
        trials=sum(trial.state == COMPLETE for trial in trials),
        seeds=list(config.seeds),
        split_digest=config.validations[config.seeds[0]].indices_digest,
        data_digest=config.data.digest,
        **source,
        date=f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d}",
        teacher=teacher.spec.name if teacher else "",
        teacher_run_key=teacher.spec.run_key if teacher else "",
    )


def find_complete(trials: list[Trial], point: Point) -> Trial | None:
    """Return the first complete trial with these hyper-parameters."""
    return next((trial for trial in trials if trial.state == COMPLETE and trial.parameters == point), None)


def summary_lines(config: StudyConfig, trials: list[Trial]) -> list[str]:
    """Return the lines that a command prints about the best trials."""

    def line(trial: Trial) -> str:
        values = format_objectives(config.objectives, trial.values, trial.standard_errors)
        return f"{format_point(trial.parameters)}: {values} (trial {trial.number})"

    if len(config.objectives) > 1:
        return ["Pareto front of the two objectives:", *map(line, pareto_front(trials))]
    best = best_of(trials)
    if best is None:
        return []
    lines = [f"best on the validation images: {line(best)}"]
    recipe = find_complete(trials, config.recipe_point())
    if recipe is not None:
        lines.append(f"the recipe's setting: {line(recipe)}")
    if best.standard_errors:
        several = " and the seeds" if len(config.seeds) > 1 else "; one seed a trial does not show that of the seeds"
        lines.append(f"\N{PLUS-MINUS SIGN}: standard error over the validation images{several}")
    if not config.options.ablation:
        lines += _warnings(config, best, trials)
    reason = reason_not_saved(config)
    if reason:
        return [*lines, f"not saved as tuned values: {reason}"]
    path = tuned.tuned_file(config.options.dataset, config.options.method)
    return [*lines, f"saved to {path}: grids use it with TUNED=1"]


def _warnings(config: StudyConfig, best: Trial, trials: list[Trial]) -> list[str]:
    """Return warnings if a best value is at the edge of its space, and if the trials differ by chance only."""
    file = SPACES / f"{config.options.method}.yaml"
    warnings = [
        f"warning: {name} {best.parameters[name]:.4g} is at the edge of its space, {axis.describe()}: a better one may "
        f"be outside: widen the space in {file}"
        for name, axis in config.space.parameters.items()
        if axis.is_edge(best.parameters[name])
    ]
    objective = config.objectives[0]
    if found := spread_within_noise(objective, trials):
        spread, error = (number_text(value, OBJECTIVES[objective].decimals) for value in found)
        warnings.append(
            f"warning: the trials differ by no more than chance (standard deviation {spread}, standard error of one "
            f"{error} {unit_of(objective)}), so the best one is not better for certain: give more TUNE_SEEDS"
        )
    return warnings


def trial_rows(config: StudyConfig, trials: list[Trial]) -> list[dict]:
    """Return one row per trial: hyper-parameters, state, and metrics on the validation images."""
    return [
        {
            "trial": trial.number,
            "state": trial.state,
            **{name: trial.parameters.get(name) for name in config.space.parameters},
            **{metric.name: trial.metrics.get(metric.name) for metric in OBJECTIVES.values()},
            "seeds": " ".join(map(str, trial.runs)),
            "run_keys": " ".join(trial.runs.values()),
            "reason": trial.reason,
        }
        for trial in trials
    ]


def _write_csv(path: Path, rows: list[dict]) -> None:
    text = io.StringIO()
    if rows:
        writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    with atomic_write(path) as file:
        file.write(text.getvalue().encode())
