"""What is known about the annotation of a folder of references beyond its label maps."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sparseunet.data.annotated_classes import annotated_classes_in
from sparseunet.data.labels import LabelSchema
from sparseunet.evaluation.pairing import names_in
from sparseunet.workspace import annotation_beside, provenance_beside


@dataclass(frozen=True, kw_only=True, slots=True)
class ReferenceAnnotation:
    """What is known about the annotation of references beyond their label maps."""

    classes: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """By case the classes that were looked for, where those were not all; no others are scored."""
    provenance: Path | None = None
    """Folder with a `Source` per voxel in files named as the references: what no person drew does
    not count. A case without such a file was drawn by a person."""


def find_reference_annotation(
    references: Path,
    *,
    annotation: Path | None,
    provenance: Path | None,
    labels: LabelSchema,
    file_ending: str,
) -> ReferenceAnnotation:
    """Return who drew the references, and which classes were looked for in each.

    Args:
        references: Folder of label maps.
        annotation: `annotation.json`; None: the one beside the references, if there is any.
        provenance: Folder; None: the one beside the references, if there is any.
        labels: The classes.
        file_ending: Of the references.

    Raises:
        RequestError: `annotation` cannot be read, or names classes that there are not.
    """
    path = annotation or annotation_beside(references)
    names = names_in(references, file_ending)
    return ReferenceAnnotation(
        classes={}
        if path is None
        else annotated_classes_in(path, classes=labels.foreground, cases=names),
        provenance=provenance or provenance_beside(references),
    )
