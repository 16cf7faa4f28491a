"""Run a study beyond this machine: WORKERS processes, each of which works on it as the command does on one machine."""

from cskd.utils.cli import results_dir, runs_dir
from cskd.utils.databases import SQLITE
from cskd.utils.errors import UserError
from experiments.config.tuned import tuned_dir
from experiments.launch.backends import DetachedBackend, Job
from experiments.launch.loop import make_command, make_sync_job
from experiments.tuning.config import StudyConfig, StudyOptions
from experiments.tuning.storage import storage_address


def check_storage_is_shared(launcher: str) -> None:
    """Raise UserError unless processes on several machines may write to the studies' storage at once."""
    address = storage_address()
    if "://" not in address or address.startswith(SQLITE):
        raise UserError(
            f"LAUNCHER={launcher}: workers on several machines cannot share a journal file or SQLite: set "
            "OPTUNA_STORAGE to a database server, such as postgresql+psycopg://user@host/optuna"
        )


def submit_workers(config: StudyConfig, options: StudyOptions, backend: DetachedBackend) -> None:
    """Submit the workers of a study. They inherit the addresses of the stores, which may have passwords."""
    folder, gpus = runs_dir() / "studies" / config.name / "workers", config.settings.replicas
    folder.mkdir(parents=True, exist_ok=True)
    folders = {"RUNS_DIR": str(runs_dir()), "RESULTS_DIR": str(results_dir()), "TUNED_DIR": str(tuned_dir())}
    command = make_command("ablate" if options.ablation else "tune", *_arguments(options), **folders)
    jobs = [Job(command, folder / f"{n}", folder / f"{n}.log", gpus=gpus) for n in range(options.workers)]
    backend.submit(jobs, make_sync_job())


def _arguments(options: StudyOptions) -> list[str]:
    """Return the arguments of the command for one process of the study."""
    values = {
        "dataset": options.dataset,
        "method": options.method,
        "architecture": options.architecture,
        "profile": options.profile,
        "seeds": options.seeds,
        "study": options.name,
        "timeout": options.timeout,
        "workers": 1,
    }
    if not options.ablation:
        values |= {
            "trials": options.trials,
            "space": options.space,
            "objective": options.objective,
            "sampler": options.sampler,
        }
    arguments = [f"--{name}={value}" for name, value in values.items() if value is not None]
    arguments += [f"--set={override}" for override in options.overrides]
    return [*arguments, "--prune"] if options.prune else arguments
