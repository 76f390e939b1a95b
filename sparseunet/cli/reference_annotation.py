"""What is known about the annotation of a folder of references beyond its label maps."""

from pathlib import Path
from typing import TYPE_CHECKING

from sparseunet.workspace import annotation_beside, provenance_beside

if TYPE_CHECKING:
    from sparseunet.data.labels import LabelSchema
    from sparseunet.evaluation.evaluate import ReferenceAnnotation


def find_reference_annotation(
    references: Path,
    *,
    annotation: Path | None,
    provenance: Path | None,
    labels: "LabelSchema",
    file_ending: str,
) -> "ReferenceAnnotation":
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
    from sparseunet.annotation.annotated_classes import annotated_classes_in
    from sparseunet.evaluation.evaluate import ReferenceAnnotation
    from sparseunet.evaluation.pairing import names_in

    path = annotation or annotation_beside(references)
    names = names_in(references, file_ending)
    return ReferenceAnnotation(
        classes={}
        if path is None
        else annotated_classes_in(path, classes=labels.foreground, cases=names),
        provenance=provenance or provenance_beside(references),
    )
