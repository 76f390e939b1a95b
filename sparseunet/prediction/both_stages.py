"""Segment scans with both stages of a cascade, one after the other."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from sparseunet.data.dataset import Case
from sparseunet.networks.trained_model import TrainedModel
from sparseunet.prediction.options import PredictionOptions
from sparseunet.prediction.predict import predict
from sparseunet.prediction.request import Existing, check_request, choose_scans, wanted_files
from sparseunet.workspace import PREDICTION_CASES_JSON, previous_stage_folder


def predict_both_stages(
    first: TrainedModel,
    model: TrainedModel,
    scans: Sequence[Case],
    *,
    output: Path,
    file_ending: str | None = None,
    options: PredictionOptions | None = None,
    existing: Existing = "refuse",
    cases_json: str = PREDICTION_CASES_JSON,
) -> list[Path]:
    """Segment scans with a cascade: the first stage writes its label files, the second reads them.

    The same as `predict` with the first stage into a folder of `output` that is named like its
    configuration, and then with the second stage and that folder. Only the latter is written as
    DICOM SEG, if at all.

    Returns:
        The label files of the second stage, as `predict`.

    Raises:
        RequestError, SparseUNetError: As `predict`; nothing is predicted by the second stage
            unless the first could segment all scans.
    """
    file_ending = file_ending or str(model.dataset_json["file_ending"])
    previous = previous_stage_folder(output, first.configuration.name)
    options = options or PredictionOptions()
    check_request(model, scans, previous, output, dicom_seg=options.dicom_seg)
    files = wanted_files(scans, output, file_ending, dicom_seg=options.dicom_seg)
    predict(
        first,
        choose_scans(scans, files, existing=existing),
        output=previous,
        file_ending=file_ending,
        options=replace(options, dicom_seg=False),
        existing=existing,
        cases_json=cases_json,
    )
    return predict(
        model,
        scans,
        output=output,
        file_ending=file_ending,
        options=options,
        existing=existing,
        cases_json=cases_json,
        previous_stage=previous,
    )
