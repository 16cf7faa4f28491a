"""The bars that a user sees while a study's trials go on."""

from rich.console import Console

from experiments.launch.progress import Display
from experiments.tuning.budget import Budget
from experiments.tuning.study import Study
from experiments.tuning.trial import Trial, best_of


class TrialDisplay(Display):
    """The bars of a grid, with the trials and the best so far over the whole."""

    def __init__(self, study: Study, budget: Budget, console: Console):
        self.study, self.count = study, budget.count
        self.trials = study.trials()
        super().__init__("study", budget.count, budget.seconds, budget.seconds_of, console)

    def heading(self) -> str:
        done = sum(trial.state != "running" for trial in self.trials)
        best = best_of(self.trials)
        message = f", best {told_point(best.parameters)}: {best.values[0]:.4g}" if best else ""
        return f"{done}/{self.count} trials{message}"

    def trial_ended(self, trial: Trial, message: str) -> None:
        self.trials = self.study.trials()
        line = f"trial {trial.number} ({told_point(trial.parameters)}): {message}"
        self.console.print(line, soft_wrap=True, highlight=False, markup=False)


def told_point(point: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.4g}" for name, value in point.items())
