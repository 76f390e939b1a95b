"""`run.json`: what one fold of a run is. Only this module reads and writes it.

It is written once, before the first step, and never changed.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from sparseunet.artifacts import hash_content, parse, read_json, write_json
from sparseunet.data.dataset import Split
from sparseunet.errors import RequestError
from sparseunet.planning.nnunet_plans import plan_from_nnunet, plan_to_nnunet
from sparseunet.planning.plan import Configuration, Plan
from sparseunet.training.recipe import Recipe
from sparseunet.version import commit
from sparseunet.workspace import RUN_JSON

RUN_KIND = "sparseunet.run"
RUN_VERSION = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class RunRecord:
    """What was trained, from what, and by which code; the content of `run.json`.

    Attributes:
        run_id: Name of the run, which is that of its folder.
        dataset_name: `DatasetXXX_Name`.
        fold: 0, 1, ... or `all`.
        plan: The dataset's, with one configuration: the one that is trained.
        configuration: Network, patch and batch as trained, every override applied.
        recipe: How it was trained; None for a model that came from elsewhere.
        mirror_axes: Axes of the patch that were mirrored in training.
        split: Cases trained and validated on; None where nobody knows.
        identity: What makes two runs the same run, see `run_identity`.
        dataset_json: Description of the dataset.
        precision: `float32`, `bfloat16` or `float16`; None where nobody knows.
        previous_stage: Second stage of a cascade: `configuration` and `run_id` of the first.
        pretrained_weights: Path of the checkpoint that was the start; None for random weights.
        time_budget: What was measured and chosen for a time budget; None without one.
        versions: Of the packages that trained, and of the code.
        imported_from: Where a model came from, if it was not trained here.
        content: The whole file as it was read; {} before it is written.
    """

    run_id: str
    dataset_name: str
    fold: int | str
    plan: Plan
    configuration: Configuration
    recipe: Recipe | None
    mirror_axes: tuple[int, ...]
    split: Split | None
    identity: Mapping[str, Any]
    dataset_json: dict[str, Any]
    precision: str | None = None
    previous_stage: Mapping[str, str] | None = None
    pretrained_weights: str | None = None
    time_budget: Mapping[str, Any] | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    imported_from: Mapping[str, Any] | None = None
    content: Mapping[str, Any] = field(default_factory=dict)

    @property
    def training_cases(self) -> tuple[str, ...]:
        """Cases that were trained on; none where nobody knows."""
        return () if self.split is None else self.split.train


def run_identity(
    recipe: Recipe,
    configuration: Configuration,
    *,
    data_hash: str,
    time_budget_min: float | None,
    pretrained_hash: str | None = None,
) -> dict[str, Any]:
    """Return what makes two runs the same run; device, precision and workers do not."""
    identity = {
        "training": hash_content(recipe.identity()),
        "configuration": hash_content(configuration),
        "data": data_hash,
        "time_budget_min": time_budget_min,
    }
    return identity if pretrained_hash is None else identity | {"pretrained": pretrained_hash}


def run_id(identity: Mapping[str, Any]) -> str:
    """Return the default name of a run, e.g. `run-3f9a1c2e44`."""
    return f"run-{hash_content(identity)[:10]}"


def has_record(folder: Path) -> bool:
    """Whether the folder of a fold says what it is."""
    return (folder / RUN_JSON).is_file()


def write_record(folder: Path, record: RunRecord) -> None:
    """Write `run.json` into the folder of a fold."""
    trained = replace(record.plan, configurations={record.configuration.name: record.configuration})
    recipe = record.recipe
    cases = record.split and {"train": record.split.train, "val": record.split.val}
    content: dict[str, Any] = {
        "kind": RUN_KIND,
        "version": RUN_VERSION,
        "run_id": record.run_id,
        "identity": record.identity,
        "dataset_name": record.dataset_name,
        "fold": record.fold,
        "cases": cases,
        "precision": record.precision,
        "dataset_json": record.dataset_json,
        "pretrained_weights": record.pretrained_weights,
        "previous_stage": record.previous_stage,
        "time_budget": record.time_budget,
        "configuration": record.configuration.name,
        "training": recipe.identity() if recipe else {"mirror_axes": list(record.mirror_axes)},
        "plan": record.content.get("plan") or plan_to_nnunet(trained),
        "versions": record.versions,
        "imported_from": record.imported_from,
    }
    optional = ("precision", "pretrained_weights", "previous_stage", "time_budget", "imported_from")
    for name in optional:
        if content[name] is None:
            del content[name]
    write_json(folder / RUN_JSON, {**record.content, **content})


def read_record(folder: Path) -> RunRecord:
    """Read what the folder of a fold says about itself.

    Raises:
        RequestError: `run.json` is missing or does not describe a run.
    """
    path = folder / RUN_JSON
    content = read_json(path)
    if not isinstance(content, dict) or content.get("kind") != RUN_KIND:
        raise RequestError(f"{path} does not describe a run of sparseunet.")
    try:
        plan = plan_from_nnunet(content["plan"], source=str(path))
        return _record(content, plan, source=str(path))
    except (LookupError, TypeError, AttributeError, ValueError) as error:
        raise RequestError(
            f"{path} does not describe a run as sparseunet writes it: {type(error).__name__}: "
            f"{error}."
        ) from None


def _record(content: dict[str, Any], plan: Plan, *, source: str) -> RunRecord:
    training, cases = content["training"], content.get("cases")
    was_imported = set(training) == {"mirror_axes"}
    return RunRecord(
        run_id=content["run_id"],
        dataset_name=content.get("dataset_name", plan.dataset_name),
        fold=content.get("fold", ""),
        plan=plan,
        configuration=plan.configurations[content["configuration"]],
        recipe=None if was_imported else parse(Recipe, training, source=source),
        mirror_axes=tuple(training["mirror_axes"]),
        split=cases and Split(train=tuple(cases["train"]), val=tuple(cases["val"])),
        identity=content.get("identity") or {},
        dataset_json=content["dataset_json"],
        precision=content.get("precision"),
        previous_stage=content.get("previous_stage"),
        pretrained_weights=content.get("pretrained_weights"),
        time_budget=content.get("time_budget"),
        versions=content.get("versions") or {},
        imported_from=content.get("imported_from"),
        content=content,
    )


def require_same_run(record: RunRecord, identity: Mapping[str, Any], folder: Path) -> None:
    """Refuse to go on with, or to overwrite, a run of another recipe, plan or data.

    Raises:
        RequestError: Names what differs.
    """
    recorded = record.identity
    keys = [*identity, *(key for key in recorded if key not in identity)]
    different = [key for key in keys if recorded.get(key) != identity.get(key)]
    if different:
        raise RequestError(
            f"{folder} holds a run with another {' and '.join(different)}; give this one another "
            "name, or let its name be made from its recipe.",
            setting="run",
        )


def current_versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that a training depends on."""
    import platform
    from importlib.metadata import PackageNotFoundError, version

    versions = {"python": platform.python_version()}
    if found := commit():
        versions["commit"] = found
    for package in ("sparseunet", "torch", "numpy", "scipy", "SimpleITK", "batchgeneratorsv2"):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "not installed"
    return versions
