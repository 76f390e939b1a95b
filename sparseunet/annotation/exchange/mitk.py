"""MITK: `.nrrd` files in its multilabel form, with the names of the labels in the header."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from sparseunet.annotation.exchange.classes import DrawnClass
from sparseunet.annotation.exchange.segments import MITK_GROUPS
from sparseunet.data.geometry import Geometry
from sparseunet.data.itk import write_itk


def write_multilabel(
    path: Path, labels_ZYX: np.ndarray, geometry: Geometry, classes: Sequence[DrawnClass]
) -> None:
    """Write one group of labels, one per class, in version 1 of MITK's form (MITK 2023 to now)."""
    labels = [
        {
            "name": each.name,
            "value": each.value,
            "color": {
                "type": "ColorProperty",
                "value": [round(part / 255, 6) for part in each.colour],
            },
            "opacity": 0.6,
            "visible": True,
            "locked": True,
        }
        for each in classes
    ]
    metadata = {
        "modality": "org.mitk.multilabel.segmentation",
        "org.mitk.multilabel.segmentation.version": "1",
        "org.mitk.multilabel.segmentation.unlabeledlabellock": "0",
        MITK_GROUPS: json.dumps([{"labels": labels}]),
    }
    write_itk(path, np.ascontiguousarray(labels_ZYX, np.uint16), geometry, metadata=metadata)
