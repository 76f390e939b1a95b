"""One console script per verb: `sparseunet_VERB ...` is `sparseunet VERB ...`."""

import sys
from functools import partial

from sparseunet.cli.main import main


def _run(verb: str) -> int:
    return main([verb, *sys.argv[1:]])


check = partial(_run, "check")
extract_fingerprint = partial(_run, "extract_fingerprint")
plan_experiment = partial(_run, "plan_experiment")
preprocess = partial(_run, "preprocess")
plan_and_preprocess = partial(_run, "plan_and_preprocess")
plan_annotation = partial(_run, "plan_annotation")
simulate_annotation = partial(_run, "simulate_annotation")
export_annotation = partial(_run, "export_annotation")
import_annotation = partial(_run, "import_annotation")
interpolate = partial(_run, "interpolate")
train = partial(_run, "train")
complete = partial(_run, "complete")
runs = partial(_run, "runs")
predict = partial(_run, "predict")
ensemble = partial(_run, "ensemble")
apply_postprocessing = partial(_run, "apply_postprocessing")
import_model = partial(_run, "import_model")
export_model = partial(_run, "export_model")
evaluate = partial(_run, "evaluate")
determine_postprocessing = partial(_run, "determine_postprocessing")
find_best_configuration = partial(_run, "find_best_configuration")
inspect_predictions = partial(_run, "inspect_predictions")
demo = partial(_run, "demo")
