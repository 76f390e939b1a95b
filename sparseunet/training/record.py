"""`run.json`: what a run is. Written once before the first step, never changed."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from sparseunet.artifacts import hash_content, parse, write_json
from sparseunet.errors import RequestError
from sparseunet.networks.trained_model import RUN_KIND, RUN_VERSION, read_description
from sparseunet.planning.nnunet_plans import plan_from_nnunet, plan_to_nnunet
from sparseunet.planning.plan import Configuration, Plan
from sparseunet.training.recipe import Recipe
from sparseunet.workspace import RUN_JSON


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
        "training": hash_content(recipe),
        "configuration": hash_content(configuration),
        "data": data_hash,
        "time_budget_min": time_budget_min,
    }
    return identity if pretrained_hash is None else identity | {"pretrained": pretrained_hash}


def run_id(identity: dict[str, Any]) -> str:
    """Return the default name of a run, e.g. `run-3f9a1c2e44`."""
    return f"run-{hash_content(identity)[:10]}"


def write_run(
    folder: Path,
    *,
    plan: Plan,
    configuration: Configuration,
    recipe: Recipe,
    **others: Any,
) -> None:
    """Write `run.json` with the plan as trained: one configuration, every override applied."""
    trained = replace(plan, configurations={configuration.name: configuration})
    description = {
        "kind": RUN_KIND,
        "version": RUN_VERSION,
        **others,
        "configuration": configuration.name,
        "training": asdict(recipe),
        "plan": plan_to_nnunet(trained),
        "versions": _versions(),
    }
    write_json(folder / RUN_JSON, description)


def read_run(folder: Path) -> tuple[dict[str, Any], Configuration, Recipe]:
    """Return the description, the configuration as trained and the recipe of a run.

    Raises:
        RequestError: `run.json` is missing or does not describe a run.
    """
    description = read_description(folder)
    plan = plan_from_nnunet(description["plan"])
    recipe = parse(Recipe, description["training"], source=str(folder / RUN_JSON))
    return description, plan.configurations[description["configuration"]], recipe


def require_same_run(description: dict[str, Any], identity: dict[str, Any], folder: Path) -> None:
    """Refuse to go on with, or to overwrite, a run of another recipe, plan or data.

    Raises:
        RequestError: Names what differs.
    """
    recorded = description.get("identity", {})
    keys = [*identity, *(key for key in recorded if key not in identity)]
    different = [key for key in keys if recorded.get(key) != identity.get(key)]
    if different:
        raise RequestError(
            f"{folder} holds a run with another {' and '.join(different)}; give this one another "
            "name with --run, or leave --run out."
        )


def _versions() -> dict[str, str]:
    import platform
    from importlib.metadata import PackageNotFoundError, version

    versions = {"python": platform.python_version()}
    for package in ("sparseunet", "torch", "numpy", "scipy", "SimpleITK", "batchgeneratorsv2"):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "not installed"
    return versions
