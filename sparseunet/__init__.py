"""Medical image segmentation that configures itself and learns from sparsely annotated slices.

Every public name is imported when it is first used, so `import sparseunet` costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sparseunet import errors
    from sparseunet.annotation.annotation_plan import read_annotation_plan, write_annotation_plan
    from sparseunet.annotation.exchange.export import export_annotation
    from sparseunet.annotation.exchange.import_annotation import import_annotation
    from sparseunet.annotation.make_annotation_plan import make_annotation_plan
    from sparseunet.annotation.simulate import simulate_annotation
    from sparseunet.data.annotation import Annotation, Source
    from sparseunet.data.check import check_dataset
    from sparseunet.data.dataset import Dataset
    from sparseunet.data.geometry import Geometry
    from sparseunet.data.image import Image
    from sparseunet.data.load import load_dataset, load_scan_folder
    from sparseunet.evaluation.evaluate import evaluate, write_scores
    from sparseunet.evaluation.scores import Scores
    from sparseunet.fingerprint.extract import extract_fingerprint
    from sparseunet.pipeline import run_pipeline
    from sparseunet.planning.make_plan import make_plan
    from sparseunet.planning.plan import Configuration, Plan
    from sparseunet.planning.plan_files import read_plan, write_plan
    from sparseunet.planning.planner import PlanOptions
    from sparseunet.prediction.in_memory import predict_image
    from sparseunet.prediction.options import PredictionOptions
    from sparseunet.prediction.predict import predict
    from sparseunet.prediction.probabilities import predict_image_probabilities
    from sparseunet.preprocessing.case import preprocess_case
    from sparseunet.preprocessing.dataset import preprocess_dataset
    from sparseunet.preprocessing.prepare import Prepared, load_prepared, prepare
    from sparseunet.runs.load import load_model
    from sparseunet.runs.record import RunRecord
    from sparseunet.runs.run import Run
    from sparseunet.runs.train import train
    from sparseunet.training.fit import fit
    from sparseunet.training.recipe import Recipe
    from sparseunet.workspace import Workspace

    __version__: str

__all__ = [
    "Annotation",
    "Configuration",
    "Dataset",
    "Geometry",
    "Image",
    "Plan",
    "PlanOptions",
    "PredictionOptions",
    "Prepared",
    "Recipe",
    "Run",
    "RunRecord",
    "Scores",
    "Source",
    "Workspace",
    "__version__",
    "check_dataset",
    "errors",
    "evaluate",
    "export_annotation",
    "extract_fingerprint",
    "fit",
    "import_annotation",
    "load_dataset",
    "load_model",
    "load_prepared",
    "load_scan_folder",
    "make_annotation_plan",
    "make_plan",
    "predict",
    "predict_image",
    "predict_image_probabilities",
    "prepare",
    "preprocess_case",
    "preprocess_dataset",
    "read_annotation_plan",
    "read_plan",
    "run_pipeline",
    "simulate_annotation",
    "train",
    "write_annotation_plan",
    "write_plan",
    "write_scores",
]

_HOMES = {
    "Annotation": "sparseunet.data.annotation",
    "Configuration": "sparseunet.planning.plan",
    "Dataset": "sparseunet.data.dataset",
    "Geometry": "sparseunet.data.geometry",
    "Image": "sparseunet.data.image",
    "Plan": "sparseunet.planning.plan",
    "PlanOptions": "sparseunet.planning.planner",
    "PredictionOptions": "sparseunet.prediction.options",
    "Prepared": "sparseunet.preprocessing.prepare",
    "Recipe": "sparseunet.training.recipe",
    "Run": "sparseunet.runs.run",
    "RunRecord": "sparseunet.runs.record",
    "Scores": "sparseunet.evaluation.scores",
    "Source": "sparseunet.data.annotation",
    "Workspace": "sparseunet.workspace",
    "check_dataset": "sparseunet.data.check",
    "evaluate": "sparseunet.evaluation.evaluate",
    "export_annotation": "sparseunet.annotation.exchange.export",
    "extract_fingerprint": "sparseunet.fingerprint.extract",
    "fit": "sparseunet.training.fit",
    "import_annotation": "sparseunet.annotation.exchange.import_annotation",
    "load_dataset": "sparseunet.data.load",
    "load_model": "sparseunet.runs.load",
    "load_prepared": "sparseunet.preprocessing.prepare",
    "load_scan_folder": "sparseunet.data.load",
    "make_annotation_plan": "sparseunet.annotation.make_annotation_plan",
    "make_plan": "sparseunet.planning.make_plan",
    "predict": "sparseunet.prediction.predict",
    "predict_image": "sparseunet.prediction.in_memory",
    "predict_image_probabilities": "sparseunet.prediction.probabilities",
    "prepare": "sparseunet.preprocessing.prepare",
    "preprocess_case": "sparseunet.preprocessing.case",
    "preprocess_dataset": "sparseunet.preprocessing.dataset",
    "read_annotation_plan": "sparseunet.annotation.annotation_plan",
    "read_plan": "sparseunet.planning.plan_files",
    "run_pipeline": "sparseunet.pipeline",
    "simulate_annotation": "sparseunet.annotation.simulate",
    "train": "sparseunet.runs.train",
    "write_annotation_plan": "sparseunet.annotation.annotation_plan",
    "write_plan": "sparseunet.planning.plan_files",
    "write_scores": "sparseunet.evaluation.evaluate",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return import_module("sparseunet.version").package_version()
    if name == "errors":
        return import_module("sparseunet.errors")
    if name not in _HOMES:
        raise AttributeError(f"module 'sparseunet' has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
