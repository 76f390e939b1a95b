"""What a fold's network says about cases after training: validation, and input of a next stage."""

import logging
from pathlib import Path

from sparseunet.data.annotated_classes import read_annotated_classes
from sparseunet.data.dataset import Dataset, Split
from sparseunet.evaluation.evaluate import evaluate, write_scores
from sparseunet.evaluation.reference_annotation import ReferenceAnnotation
from sparseunet.machine import processors
from sparseunet.networks.trained_model import TrainedModel
from sparseunet.prediction.options import PredictionOptions
from sparseunet.prediction.predict import predict
from sparseunet.prediction.record import is_outdated
from sparseunet.preprocessing.prepare import Prepared
from sparseunet.runs.load import load_trained_model
from sparseunet.runs.record import read_record
from sparseunet.workspace import SUMMARY_JSON, held_out_folder, probabilities_file

logger = logging.getLogger(__name__)


def segment_held_out(
    prepared: Prepared,
    folder: Path,
    split: Split,
    *,
    fold: int | str,
    device: str,
    previous_stage: Path | None,
    save_probabilities: bool,
) -> dict[str, Path]:
    """Segment a fold's validation cases and score them; without any (`all`) its training cases.

    What these weights have done already is left alone; what other weights did is done again.

    Args:
        prepared: The dataset; the scans are those of the raw dataset.
        folder: Of the fold, trained to the end.
        split: Its cases.
        fold: Its number, or `all`.
        device: Name of the device; the precision is that of the training.
        previous_stage: Second stage of a cascade: folder with the first stage's label files.
        save_probabilities: Whether to keep the probabilities of all classes beside them.

    Returns:
        The label files by case.
    """
    model = load_trained_model(folder.parent, [fold])
    output, ending = held_out_folder(folder), str(model.dataset_json["file_ending"])
    files = {case: output / f"{case}{ending}" for case in split.val or split.train}
    outdated = is_outdated(model, output)
    needed = files.values() if model.configuration.next_stage is not None else ()
    scored = (output / SUMMARY_JSON).is_file() or not split.val
    probabilities = {path: probabilities_file(path, case) for case, path in files.items()}
    lacks_probabilities = save_probabilities and not all(
        path.is_file() for path in probabilities.values()
    )
    is_done = scored and not outdated and all(path.is_file() for path in needed)
    if is_done and not lacks_probabilities:
        return files
    again = outdated or any(
        label.is_file() and not path.is_file() and save_probabilities
        for label, path in probabilities.items()
    )
    if again:  # what is left of other weights must not be taken for these weights' later
        for path in probabilities.values():
            path.unlink(missing_ok=True)
    dataset = prepared.raw_dataset()
    predict(
        model,
        [dataset.case(name) for name in files],
        output=output,
        file_ending=ending,
        options=PredictionOptions(
            device=device,
            precision=read_record(folder).precision or "auto",
            save_probabilities=save_probabilities,
        ),
        existing="overwrite" if again else "skip",
        previous_stage=previous_stage,
    )
    if split.val:
        _score(prepared, output, split, model, dataset)
    return files


def _score(
    prepared: Prepared, output: Path, split: Split, model: TrainedModel, dataset: Dataset
) -> None:
    scores = evaluate(
        prepared.ground_truth,
        output,
        labels=model.labels,
        file_ending=str(model.dataset_json["file_ending"]),
        num_workers=processors(),
        cases=split.val,
        annotation=ReferenceAnnotation(classes=read_annotated_classes(dataset)),
    )
    write_scores(output / SUMMARY_JSON, scores)
    logger.info(
        f"Validation on {len(split.val)} cases: mean foreground Dice "
        f"{scores.foreground_mean('Dice'):.4f} ({output / SUMMARY_JSON})"
    )
