"""Plan the next round of annotation: a trained network predicts scan by scan, slices are ranked."""

from collections.abc import Collection, Sequence
from pathlib import Path

from sparseunet.annotation.annotation_plan import AnnotationPlan
from sparseunet.annotation.budget import Budget
from sparseunet.annotation.cost import CostModel
from sparseunet.annotation.make_annotation_plan import make_stacks
from sparseunet.annotation.next_round import (
    RoundOptions,
    SliceUncertainty,
    annotated_slices,
    measure_uncertainty,
    plan_next_round,
)
from sparseunet.annotation.selection.slices import SliceStack
from sparseunet.annotation.spending import Axis
from sparseunet.data.annotation_record import read_annotation_records
from sparseunet.data.dataset import Dataset
from sparseunet.errors import RequestError
from sparseunet.prediction.options import PredictionOptions
from sparseunet.prediction.probabilities import predict_probabilities
from sparseunet.runs.find import default_folds
from sparseunet.runs.load import load_trained_model
from sparseunet.workspace import ANNOTATION_JSON


def plan_after(
    run_folder: Path,
    dataset: Dataset,
    *,
    budget: Budget,
    axis: Axis,
    cost: CostModel,
    options: RoundOptions,
    device: str,
    functions: Collection[str] | None = None,
) -> AnnotationPlan:
    """Rank the slices of a dataset that are not annotated yet; one scan is in memory at a time.

    The run may name `functions` of the user's only; None, for runs of the user's own, allows any.

    Raises:
        RequestError: No such run, no scan, nothing left to annotate, or budget and data do not fit.
    """
    if not run_folder.is_dir():
        raise RequestError(
            f"{run_folder} is no folder; expected the folder of a run.", setting="after"
        )
    if not dataset.labels.foreground:
        raise RequestError(
            "A next round needs a dataset with classes, not only scans.", setting="dataset"
        )
    stacks = make_stacks(dataset, axis=axis)
    file = dataset.folder / ANNOTATION_JSON
    records = read_annotation_records(file).cases if file.is_file() else {}
    taken = [
        annotated_slices(stack, dataset.labels, record=records.get(stack.case.name))
        for stack in stacks
    ]
    open_stacks = [
        number for number, stack in enumerate(stacks) if len(taken[number]) < stack.num_slices
    ]
    if not open_stacks:
        raise RequestError(f"Every slice of {dataset.name} is annotated; nothing is left to plan.")
    stacks, taken = [stacks[i] for i in open_stacks], [taken[i] for i in open_stacks]
    return plan_next_round(
        dataset.name,
        stacks,
        _uncertainties(run_folder, stacks, dataset, device=device, functions=functions),
        taken=taken,
        budget=budget,
        labels=dataset.labels,
        cost=cost,
        options=options,
    )


def _uncertainties(
    run_folder: Path,
    stacks: Sequence[SliceStack],
    dataset: Dataset,
    *,
    device: str,
    functions: Collection[str] | None,
) -> list[SliceUncertainty]:

    model = load_trained_model(run_folder, default_folds(run_folder), functions=functions)
    if tuple(model.labels.foreground) != tuple(dataset.labels.foreground):
        raise RequestError(
            f"The network knows the classes {', '.join(model.labels.foreground)}, {dataset.name} "
            f"has {', '.join(dataset.labels.foreground)}; take a run on the same classes."
        )
    cases = list({stack.case.name: stack.case for stack in stacks}.values())
    options = PredictionOptions(device=device, mirror=False)
    found: dict[tuple[str, int], SliceUncertainty] = {}
    predicted = predict_probabilities(model, cases, options=options)
    for case, probabilities_KZYX in zip(cases, predicted, strict=True):
        for stack in (stack for stack in stacks if stack.case.name == case.name):
            found[case.name, stack.axis] = measure_uncertainty(
                probabilities_KZYX, axis=stack.axis, has_regions=model.labels.has_regions
            )
    return [found[stack.case.name, stack.axis] for stack in stacks]
