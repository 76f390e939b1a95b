"""Take the plans of one dataset for another, as fine-tuning needs the same network and grid."""

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

from sparseunet.errors import RequestError
from sparseunet.planning.make_plan import normalization_of, reader_of
from sparseunet.planning.nnunet_plans import plan_from_nnunet


def move_plan(
    content: Mapping[str, Any],
    *,
    dataset_name: str,
    dataset_json: Mapping[str, Any],
    plans_name: str,
    flat: bool,
) -> dict[str, Any]:
    """Return the content of a plans file of one dataset as that of another.

    Name of the dataset and of the plans, the folders of preprocessed data (which carry the name of
    the plans) and the reader change; grid, intensity statistics, patch, batch and network do not.

    Args:
        content: Of the source's plans file.
        dataset_name: Target, e.g. `Dataset010_Name`.
        dataset_json: The target's.
        plans_name: What the moved plans are called.
        flat: Whether the target's images have one slice.

    Raises:
        RequestError: Lists everything that does not fit: the number of channels, the normalisation
            of a channel, or volumes planned for images of one slice.

    Source: nnU-Net 2.8.1, `move_plans_between_datasets`; it checks neither channels nor
    normalisation.
    """
    source = f"the plans {content.get('plans_name')} of {content.get('dataset_name')}"
    plan = plan_from_nnunet(content, source=source)
    planned = next(iter(plan.configurations.values())).normalization
    wanted = normalization_of(dataset_json)
    problems = []
    if len(planned) != len(wanted):
        problems.append(
            f"they are for {len(planned)} channels, {dataset_name} has {len(wanted)}; choose a "
            "source with the same channels"
        )
    problems += [
        f"channel {channel} is normalised as {before} there, as {after} by the channel_names of "
        f"{dataset_name}; give the channel the same name in both dataset.json if it is the same "
        "kind of image"
        for channel, (before, after) in enumerate(zip(planned, wanted, strict=False))
        if before != after
    ]
    if flat and "2d" not in plan.configurations:
        problems.append(
            f"they have only 3D networks, the images of {dataset_name} have one slice; choose a "
            "source with a 2d configuration"
        )
    if problems:
        lines = "\n".join(f"  {problem}" for problem in problems)
        raise RequestError(f"{source[0].upper()}{source[1:]} do not fit {dataset_name}:\n{lines}")
    return _renamed(content, dataset_name, dataset_json, plans_name, flat=flat)


def _renamed(
    content: Mapping[str, Any],
    dataset_name: str,
    dataset_json: Mapping[str, Any],
    plans_name: str,
    *,
    flat: bool,
) -> dict[str, Any]:
    moved: dict[str, Any] = deepcopy(dict(content))
    before = str(content["plans_name"])
    for configuration in moved["configurations"].values():
        folder = configuration.get("data_identifier")
        if folder is not None and before != plans_name:
            rest = folder[len(before) :] if folder.startswith(before) else f"_{folder}"
            configuration["data_identifier"] = f"{plans_name}{rest}"
    moved["dataset_name"] = dataset_name
    moved["plans_name"] = plans_name
    moved["image_reader_writer"] = reader_of(dataset_json, flat=flat)
    moved["sparseunet"] = {
        **content.get("sparseunet", {}),
        "plans_from": {"dataset": content["dataset_name"], "plans": before},
    }
    return moved
