"""The whole method, top to bottom: the file to read first.

    raw dataset → check → fingerprint → plan → preprocess → train on what is annotated
                → predict the test scans → evaluate

Each step of `run_pipeline` is one stage, a public function with a package of its own. The command
line calls the same functions one by one (`sparseunet plan_and_preprocess`, `train`, ...).
"""

from dataclasses import dataclass
from pathlib import Path

from sparseunet.annotation.annotated_classes import read_annotated_classes
from sparseunet.data.load import find_scans
from sparseunet.errors import DatasetError
from sparseunet.evaluation.evaluate import Scores, evaluate
from sparseunet.fingerprint.extract import examine_dataset
from sparseunet.networks.device import DTYPE_NAMES
from sparseunet.networks.trained_model import load_trained_model
from sparseunet.planning.make_plan import make_plan
from sparseunet.planning.overrides import with_base_features, with_batch_size
from sparseunet.prediction.options import PredictionOptions
from sparseunet.prediction.predict import predict
from sparseunet.preprocessing.dataset import preprocess_dataset
from sparseunet.preprocessing.store import CaseStore
from sparseunet.training.recipe import Recipe
from sparseunet.training.run import train_on_all_cases
from sparseunet.training.step import Hardware
from sparseunet.workspace import Workspace


@dataclass(frozen=True, kw_only=True, slots=True)
class PipelineResult:
    """What came out, and where it lies."""

    scores: Scores
    run_folder: Path
    predictions: Path


def run_pipeline(
    raw_dataset: Path,
    *,
    workspace: Workspace,
    configuration_name: str,
    base_features: int,
    batch_size: int,
    recipe: Recipe,
    hardware: Hardware,
) -> PipelineResult:
    """Go from a raw dataset, sparse or dense, to scores on its test set (`imagesTs`, `labelsTs`).

    Raises:
        DatasetError: The integrity check rejects the dataset; holds every problem.
    """
    examination = examine_dataset(raw_dataset, num_workers=2)
    dataset, fingerprint = examination.dataset, examination.fingerprint
    if dataset is None or fingerprint is None:
        raise DatasetError(examination.report.problems)
    name, ending, description = dataset.name, dataset.file_ending, dataset.description

    plan = make_plan(fingerprint, dataset_json=description, dataset_name=name)
    planned = plan.configurations[configuration_name]
    configuration = with_batch_size(with_base_features(planned, base_features), batch_size)

    folder = workspace.preprocessed_dataset(name)
    preprocess_dataset(
        dataset,
        plan=plan,
        configurations=[configuration],
        folder=folder,
        num_workers=2,
        annotated_classes=read_annotated_classes(dataset),
    )
    store = CaseStore(folder / configuration.data_identifier)
    run_folder = train_on_all_cases(
        store,
        plan=plan,
        configuration=configuration,
        dataset_json=description,
        recipe=recipe,
        hardware=hardware,
        results=workspace.results_dataset(name) / configuration.name,
    )
    scans = find_scans(
        raw_dataset / "imagesTs", file_ending=ending, num_channels=len(dataset.channel_names)
    )
    options = PredictionOptions(
        device=str(hardware.device), precision=DTYPE_NAMES[hardware.dtype], num_workers=2
    )
    model, predictions = load_trained_model(run_folder, ["all"]), run_folder / "predictions"
    predict(model, scans, output=predictions, file_ending=ending, options=options)
    scores = evaluate(
        raw_dataset / "labelsTs",
        predictions,
        labels=dataset.labels,
        file_ending=ending,
        num_workers=2,
    )
    return PipelineResult(scores=scores, run_folder=run_folder, predictions=predictions)
