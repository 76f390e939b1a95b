"""Cases in which only some classes were looked for, as the output channels of a network see it."""

from collections.abc import Sequence

import numpy as np

from sparseunet.data.annotation import Annotation
from sparseunet.data.dataset import Case
from sparseunet.data.labels import LabelSchema
from sparseunet.errors import DatasetError, Problem


def annotated_outputs(labels: LabelSchema, classes: Sequence[str]) -> tuple[bool, ...] | None:
    """Return for each output channel whether its class was looked for; None if all were.

    Background, a channel where classes are exclusive, is looked for with any class.
    """
    known = {"background", *classes}
    outputs = tuple(name in known for name in labels.output_names)
    return None if all(outputs) else outputs


def require_only_annotated(
    case: Case, annotation: Annotation, labels: LabelSchema, outputs: Sequence[bool]
) -> None:
    """Refuse labels of classes that were not looked for: one of the two is a mistake.

    Raises:
        DatasetError: Annotated voxels hold another class, or no class was looked for.
    """
    by_name = labels.foreground
    annotated_classes = {
        name for name, done in zip(labels.output_names, outputs, strict=True) if done
    }
    allowed = {0}.union(*(values for name, values in by_name.items() if name in annotated_classes))
    found = set(np.unique(annotation.labels_ZYX[annotation.annotated_ZYX]).tolist())
    named = ", ".join(name for name in by_name if name in annotated_classes)
    if not found or (found <= allowed and named):
        return
    others = found - allowed
    unexpected = [name for name, values in by_name.items() if others.intersection(values)]
    raise DatasetError(
        [
            Problem(
                case=case.name,
                file=str(case.label),
                found=f"labels of {', '.join(unexpected)}" if unexpected else "annotated voxels",
                expected=f"labels of {named} alone, the annotated_classes of annotation.json"
                if named
                else "no annotation, as annotated_classes of annotation.json is empty",
                fix="add the classes that were looked for to annotated_classes, or set voxels that "
                "nobody decided about to the ignore value",
            )
        ]
    )
