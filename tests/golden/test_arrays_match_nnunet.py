"""nnU-Net 2.8.1 preprocessed the phantoms compared with here (`make_preprocessed_arrays.py`)."""

import json
from pathlib import Path

import numpy as np
import pytest

from sparseunet.data.annotation import Annotation
from sparseunet.data.geometry import Geometry
from sparseunet.data.image import Image
from sparseunet.planning.nnunet_plans import plan_from_nnunet
from sparseunet.preprocessing.case import preprocess_case
from sparseunet.preprocessing.interpolation import separate_axis

FILES = sorted((Path(__file__).parent / "preprocessed_arrays").glob("*.npz"))


@pytest.fixture(params=FILES, ids=lambda path: path.stem)
def golden(request):
    with np.load(request.param, allow_pickle=False) as content:
        return {key: content[key] for key in content.files}


def _preprocessed(golden):
    plan = plan_from_nnunet(json.loads(str(golden["plans"])))
    voxels_CZYX = golden["voxels_CZYX"].astype(np.float32)
    geometry = Geometry(
        shape=voxels_CZYX.shape[1:], spacing_mm=tuple(golden["spacing_mm"].tolist())
    )
    return preprocess_case(
        "case",
        Image(voxels_CZYX=voxels_CZYX, geometry=geometry),
        Annotation.from_label_map(golden["labels_ZYX"], ignore=None),
        plan=plan,
        configuration=plan.configurations["3d_fullres"],
    )


def test_the_image_equals_nnunets_within_float32(golden):
    difference_CZYX = np.abs(_preprocessed(golden).image_CZYX - golden["nnunet_image_CZYX"])
    assert difference_CZYX.max() < 5e-6


def test_labels_equal_nnunets_where_the_image_is_not_padding(golden):
    case = _preprocessed(golden)
    theirs_ZYX = golden["nnunet_labels_ZYX"]
    # nnU-Net marks the outside of the nonzero mask with -1, which then competes as a class of its
    # own; there and at its rim only.
    inside_ZYX = case.inside_ZYX & (theirs_ZYX >= 0)
    equal_ZYX = case.annotation.labels_ZYX == np.maximum(theirs_ZYX, 0)
    assert equal_ZYX[inside_ZYX].all()
    assert equal_ZYX.mean() > 0.999


def test_the_files_hold_every_branch_of_resampling():
    branches = set()
    for path in FILES:
        with np.load(path, allow_pickle=False) as content:
            plan = plan_from_nnunet(json.loads(str(content["plans"])))
            spacing_mm = content["spacing_mm"][list(plan.transpose_forward)]
            new_spacing_mm = plan.configurations["3d_fullres"].spacing_mm
            branches.add((separate_axis(spacing_mm, new_spacing_mm), *plan.transpose_forward))
    assert branches >= {(None, 0, 1, 2), (0, 0, 1, 2), (None, 2, 0, 1), (0, 2, 0, 1)}
