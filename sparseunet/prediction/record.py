"""`prediction.json`: what made the label files that lie beside it."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from sparseunet.artifacts import read_json
from sparseunet.data.dicom_seg import Algorithm
from sparseunet.errors import RequestError
from sparseunet.networks.trained_model import TrainedModel, hash_weights
from sparseunet.version import commit, package_version
from sparseunet.workspace import PREDICTION_JSON

if TYPE_CHECKING:
    from sparseunet.prediction.options import PredictionOptions

PREDICTION_KIND = "sparseunet.prediction"
PREDICTION_VERSION = 1


def describe(model: TrainedModel, options: "PredictionOptions") -> dict[str, Any]:
    """Return what to write: the run, hashes of its weights, the options and the versions."""
    return {
        "kind": PREDICTION_KIND,
        "version": PREDICTION_VERSION,
        "run_id": model.run_id,
        "run_folder": str(model.origin or model.run_folder),
        "configuration": model.configuration.name,
        "weights": [
            {"file": str(path.relative_to(model.run_folder)), "sha256": sha256}
            for path, sha256 in zip(model.checkpoints, hash_weights(model), strict=True)
        ],
        "options": asdict(options),
        "sparseunet": package_version(),
        "commit": commit(),
        "torch": torch.__version__,
    }


def algorithm_of(description: dict[str, Any]) -> Algorithm:
    """Return the description of the model in a DICOM SEG: its run and the hashes of its weights."""
    weights = _weights(description)
    return Algorithm(
        version=description["sparseunet"],
        serial_number=weights[0],
        parameters={
            "run": description["run_id"],
            "configuration": description["configuration"],
            "weights_sha256": " ".join(weights),
        },
    )


def require_same_prediction(output: Path, description: dict[str, Any]) -> None:
    """Refuse to mix predictions of different weights, options or previous stages in one folder.

    What is recorded there about cases that `description` does not name is added to it, and the
    precision.

    Raises:
        RequestError: Says what differs, or that the folder does not say where its files come from.
    """
    if not (output / PREDICTION_JSON).is_file():
        raise RequestError(
            f"{output} holds label files but no {PREDICTION_JSON} that says where they come from; "
            "they are not mixed with predictions. Overwrite them or use another folder.",
            setting="overwrite",
        )
    found = read_json(output / PREDICTION_JSON)

    def identity(content: dict[str, Any]) -> tuple[Any, ...]:
        options = content["options"]
        return _weights(content), options["mirror"], options["step"]

    if not isinstance(found, dict) or found.get("kind") != PREDICTION_KIND:
        raise RequestError(
            f"{output / PREDICTION_JSON} does not describe predictions of sparseunet."
        )
    if identity(found) != identity(description):
        raise RequestError(
            f"{output} holds predictions of run {found['run_id']} with other weights or options "
            "(mirroring, step); they are not mixed. Overwrite them or use another folder.",
            setting="overwrite",
        )
    if "precision" in found:
        description["precision"] = found["precision"]
    before, now = (content.get("previous_stage", {}) for content in (found, description))
    changed = sorted(case for case in before.keys() & now.keys() if before[case] != now[case])
    if changed:
        raise RequestError(
            f"{output} holds predictions from other segmentations of the previous stage "
            f"({', '.join(changed)}); they are not mixed. Overwrite them or use another folder.",
            setting="overwrite",
        )
    if before:
        description["previous_stage"] = before | now


def _weights(description: dict[str, Any]) -> list[str]:
    return [weight["sha256"] for weight in description["weights"]]


def is_outdated(model: TrainedModel, output: Path) -> bool:
    """Return whether the folder says that other weights than the model's made its label files."""
    if not (output / PREDICTION_JSON).is_file():
        return False
    found: dict[str, Any] = read_json(output / PREDICTION_JSON)
    return _weights(found) != list(hash_weights(model))
