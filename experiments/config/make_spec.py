"""The spec of a run, from the settings of a recipe and the prepared dataset."""

from cskd import NUMERICS_VERSION
from cskd.data.store import Dataset
from cskd.methods import build_method
from cskd.models.weights import load_weights
from cskd.utils.cli import data_dir
from experiments.config.settings import Settings
from experiments.config.spec import RunSpec, Validation


def make_spec(
    name: str,
    dataset: Dataset,
    profile: str,
    settings: Settings,
    architecture: str,
    method: str,
    seed: int,
    *,
    overridden: bool = False,
    validation: Validation | None = None,
) -> RunSpec:
    """Return the spec of a run, with its teacher's, on the prepared dataset of recipe ``name``.

    Raises UserError for a method that cannot be built.
    """
    built = build_method(method, settings.parameters_of(method))
    teacher = None
    if built.needs_teacher:
        teacher = make_spec(
            name,
            dataset,
            profile,
            settings,
            settings.resolve_architecture(settings.teacher.architecture),
            settings.teacher.method,
            # A teacher of another seed would have other training images than its student.
            seed if settings.subset and settings.subset.draw == "seed" else settings.teacher.seed,
            overridden=overridden,
            validation=validation,
        )
    reason = "validation split" if validation else _incomparable_reason(dataset, profile, settings, overridden)
    return RunSpec(
        dataset=name,
        profile=profile,
        architecture=architecture,
        method=method,
        parameters=built.parameters(),
        schedule_parameters=settings.schedule_parameters_of(method),
        seed=seed,
        settings=settings,
        data_digest=dataset.digest,
        data_complete=dataset.complete,
        data_source=dataset.source,
        weights_digest=load_weights(architecture, settings.weights, data_dir())[1] if settings.weights else "",
        comparable=not reason,
        comparable_reason=reason,
        validation=validation,
        teacher=teacher,
        numerics_version=NUMERICS_VERSION,
    )


def _incomparable_reason(dataset: Dataset, profile: str, settings: Settings, overridden: bool) -> str:
    """Return why a run is not comparable with the paper's; "" if it is."""
    resize = settings.inputs.test_resize
    if profile != "paper":
        return f"profile {profile}"
    if overridden:
        return "settings differ from the recipe"
    if not dataset.complete:
        return "the dataset is incomplete"
    if resize is not None and dataset.short_side < min(resize, settings.inputs.image_size):
        return f"images of {dataset.short_side} px are smaller than the {settings.inputs.image_size} px needed"
    return ""
