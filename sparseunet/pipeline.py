"""The whole method, top to bottom: the file to read first.

    raw dataset → prepare (check, fingerprint, plan, preprocess) → train on what is annotated
                → load the model → predict the test scans → evaluate

The commands and a script call these same five functions: `sparseunet plan_and_preprocess`, `train`,
`predict` and `evaluate`. What each does stands in a package of its own.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sparseunet.data.load import load_dataset
from sparseunet.evaluation.evaluate import evaluate
from sparseunet.evaluation.scores import Scores
from sparseunet.prediction.options import PredictionOptions
from sparseunet.prediction.predict import predict
from sparseunet.preprocessing.prepare import prepare
from sparseunet.runs.load import load_model
from sparseunet.runs.run import Run
from sparseunet.runs.train import train
from sparseunet.training.recipe import Recipe
from sparseunet.workspace import Workspace


@dataclass(frozen=True, kw_only=True, slots=True)
class PipelineResult:
    """What came out, and where it lies.

    Attributes:
        scores: Of the test set.
        run: The training.
        predictions: Folder of the segmentations of the test set.
    """

    scores: Scores
    run: Run
    predictions: Path


def run_pipeline(
    raw_dataset: Path | str,
    *,
    workspace: Workspace | Path | str,
    configuration: str = "3d_fullres",
    recipe: Recipe | Mapping[str, Any] | None = None,
    device: str = "auto",
    **settings: Any,
) -> PipelineResult:
    """Go from a raw dataset, sparse or dense, to scores on its test set (`imagesTs`, `labelsTs`).

    Args:
        raw_dataset: Folder of the dataset.
        workspace: Where preprocessed data and results go.
        configuration: `2d`, `3d_fullres`, ...
        recipe: How to train.
        device: `auto`, `cpu`, `cuda`, `cuda:N` or `mps`.
        settings: Other arguments of `train`, such as `base_features`.

    Raises:
        DatasetError: The check rejects the dataset; holds every problem.
    """
    dataset = load_dataset(raw_dataset)
    prepared = prepare(dataset, workspace=workspace, configurations=[configuration])
    run = train(prepared, configuration, "all", recipe=recipe, device=device, **settings)
    model = load_model(run, options=PredictionOptions(device=device))
    predictions = run.folder / "predictions"
    predict(model, dataset.folder / "imagesTs", output=predictions)
    scores = evaluate(dataset.folder / "labelsTs", predictions)
    return PipelineResult(scores=scores, run=run, predictions=predictions)
