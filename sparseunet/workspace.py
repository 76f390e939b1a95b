"""The only module that knows folder and file names."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sparseunet.errors import RequestError

DATASET_JSON = "dataset.json"
ANNOTATION_JSON = "annotation.json"
ANNOTATION_ROUNDS = "annotation_rounds"
EXPORT_JSON = "export.json"
WORK_LIST_CSV = "work_list.csv"
PROVENANCE = "provenanceTr"
CONFIDENCE = "confidenceTr"
INTERPOLATION_JSON = "interpolation.json"
_INTERPOLATED = "interpolated"
FINGERPRINT_JSON = "dataset_fingerprint.json"
LABEL_DENSITY_JSON = "label_density.json"
SPLITS_JSON = "splits_final.json"
RUN_JSON = "run.json"
LOG_JSONL = "log.jsonl"
PROGRESS_PNG = "progress.png"
FORECAST_JSON = "forecast.json"
CHECKPOINT_LATEST = "checkpoint_latest.pt"
CHECKPOINT_BEST = "checkpoint_best.pt"
CHECKPOINT_FINAL = "checkpoint_final.pt"
TRAINING_LOCK = "training.lock"
TENSORBOARD = "tensorboard"
NNUNET_CHECKPOINTS = ("checkpoint_final.pth", "checkpoint_best.pth")
"""nnU-Net's, the one to prefer first."""
PLANS_JSON = "plans.json"
MANIFEST_JSON = "manifest.json"
SUMMARY_JSON = "summary.json"
COMPARISON_JSON = "comparison.json"
INSPECTION_JSON = "inspection.json"
PREDICTION_JSON = "prediction.json"
PREDICTION_CASES_JSON = "prediction_cases.json"
ENSEMBLE_JSON = "ensemble.json"
POSTPROCESSING_JSON = "postprocessing.json"
BEST_CONFIGURATION_JSON = "best_configuration.json"
BEST_CONFIGURATION_TXT = "best_configuration.txt"
_ENSEMBLES = "ensembles"
VALIDATION = "validation"
EXAMINED = "examined"
_TRAINING_CASES = "training_cases"
_PREDICTED_NEXT_STAGE = "predicted_next_stage"
GROUND_TRUTH = "gt_segmentations"
_UNCERTAINTY = "uncertainty"
CONFIDENCE_MAP = "confidence"
"""Of the maps that `uncertainty_file` is about."""
COMPLETION_JSON = "completion.json"
REQUEST_JSON = "request.json"
_COMPLETING = ".completing-"
_PREDICTED = "predicted"


@dataclass(frozen=True, kw_only=True, slots=True)
class Workspace:
    """Where raw data, preprocessed data and results lie.

    Attributes:
        raw: Folder of raw datasets.
        preprocessed: Folder of what planning and preprocessing made.
        results: Folder of runs.
    """

    raw: Path
    preprocessed: Path
    results: Path

    @classmethod
    def at(cls, root: Path) -> "Workspace":
        """Return the workspace with `raw/`, `preprocessed/` and `results/` below `root`."""
        return cls(raw=root / "raw", preprocessed=root / "preprocessed", results=root / "results")

    def raw_dataset(self, dataset: str) -> Path:
        """Return the folder of the raw dataset given by id (`4`), name or path.

        Raises:
            RequestError: No such dataset, or several have the id; lists what there is.
        """
        return _find_dataset(dataset, self.raw)

    def dataset_name(self, dataset: str) -> str:
        """Return the name of a dataset that is preprocessed, trained on or raw here.

        Raises:
            RequestError: It is nowhere in the workspace; lists what there is.
        """
        for root in (self.preprocessed, self.results):
            try:
                return _find_dataset(dataset, root).name
            except RequestError:
                continue
        return self.raw_dataset(dataset).name

    def new_raw_dataset(self, name: str) -> Path:
        """Return the folder a new raw dataset called `name` (or at the path `name`) gets.

        Raises:
            RequestError: No name like `DatasetXXX_Name`, its id is taken, or the folder exists.
        """
        folder = Path(name) if "/" in name else self.raw / name
        if not _DATASET_NAME.fullmatch(folder.name):
            raise RequestError(
                f"{folder.name!r} is no dataset name; expected DatasetXXX_Name with a three-digit "
                "id, e.g. Dataset010_Hip10."
            )
        if folder.exists():
            raise RequestError(
                f"{folder} exists already and is not overwritten; choose another name or remove it."
            )
        same_id = [
            other for other in _datasets(folder.parent) if other.name[:11] == folder.name[:11]
        ]
        if same_id:
            raise RequestError(
                f"Dataset id {folder.name[7:10]} is taken by {same_id[0]}; choose another id."
            )
        return folder

    def raw_dataset_to_extend(self, name: str) -> Path:
        """Return the folder of the raw dataset called `name`: the one there is, or a new one.

        Raises:
            RequestError: There is none, and `new_raw_dataset` refuses the name.
        """
        folder = Path(name) if "/" in name else self.raw / name
        return folder if folder.is_dir() else self.new_raw_dataset(name)

    def preprocessed_dataset(self, dataset_name: str) -> Path:
        """Return the folder of fingerprint, plans, splits and preprocessed configurations."""
        return self.preprocessed / dataset_name

    def plans_file(self, dataset_name: str, plans_name: str = "nnUNetPlans") -> Path:
        """Return the path of a plans file."""
        return self.preprocessed_dataset(dataset_name) / f"{plans_name}.json"

    def label_density_file(self, dataset_name: str) -> Path:
        """Return the path of the counts of what is annotated."""
        return self.preprocessed_dataset(dataset_name) / LABEL_DENSITY_JSON

    def interpolated_labels(self, dataset_name: str) -> Path:
        """Return where labels filled while preprocessing are kept, in folders like a raw one's."""
        return self.preprocessed_dataset(dataset_name) / _INTERPOLATED

    def results_dataset(self, dataset_name: str) -> Path:
        """Return the folder of all runs on a dataset."""
        return self.results / dataset_name

    def ensemble_folder(self, dataset_name: str, names: Sequence[str]) -> Path:
        """Return where the held-out segmentations of several runs together lie."""
        return self.results_dataset(dataset_name) / _ENSEMBLES / "+".join(names)

    def run_folder(self, dataset_name: str, configuration: str, run_id: str) -> Path:
        """Return the folder of one run, which holds `fold_0` ... or `fold_all`."""
        return self.results_dataset(dataset_name) / configuration / run_id


def plan_report_file(plans_file: Path) -> Path:
    """Return the path of the report beside a plans file, `PLANSNAME_report.md`."""
    return plans_file.with_name(f"{plans_file.stem}_report.md")


def fold_folder(run_folder: Path, fold: int | str) -> Path:
    """Return the folder of one fold (0, 1, ... or `all`) of a run."""
    return run_folder / f"fold_{fold}"


def folds_of(run_folder: Path, checkpoint: str) -> tuple[int | str, ...]:
    """Return the folds whose folder holds a file called `checkpoint`: numbers, then `all`."""
    prefix = fold_folder(run_folder, "").name
    names = {
        path.parent.name.removeprefix(prefix) for path in run_folder.glob(f"{prefix}*/{checkpoint}")
    }
    numbers = sorted(int(name) for name in names if name.isdecimal())
    return (*numbers, *(["all"] if "all" in names else []))


def is_plain_name(name: object) -> bool:
    """Whether a name from a file is that of one file or folder, and no way out of its folder."""
    return (
        isinstance(name, str)
        and 0 < len(name) < 200
        and not set(name) & set("/\\:\0")
        and name not in {".", ".."}
    )


def nnunet_model_name(plans_name: str, configuration: str) -> str:
    """Return what nnU-Net calls the folder of a model of its default trainer."""
    return f"nnUNetTrainer__{plans_name}__{configuration}"


def nnunet_sibling(model_folder: Path, configuration: str) -> Path:
    """Return the folder of the same trainer and plans for another configuration."""
    return model_folder.with_name("__".join((*model_folder.name.split("__")[:-1], configuration)))


def held_out_folder(fold: Path) -> Path:
    """Return where a fold's network puts its segmentations of the cases that it is asked about.

    A numbered fold is asked about its validation cases, the fold `all` about its training cases.
    """
    return fold / (_TRAINING_CASES if fold.name == fold_folder(Path(), "all").name else VALIDATION)


def next_stage_folder(fold: Path, configuration: str) -> Path:
    """Return where the same segmentations lie on the grid of the next stage's network."""
    return fold / _PREDICTED_NEXT_STAGE / configuration


def sibling_run(run_folder: Path, configuration: str, run_id: str) -> Path:
    """Return the folder of a run of another configuration on the same dataset."""
    return run_folder.parent.parent / configuration / run_id


def previous_stage_folder(output: Path, configuration: str) -> Path:
    """Return where `predict` puts the segmentations of the first stage of a cascade."""
    return output / configuration


def unfinished_completion(folder: Path) -> Path:
    """Return where a new raw dataset with completed labels grows before it takes its name."""
    return folder.with_name(f"{_COMPLETING}{folder.name}")


def completing_predictions(unfinished: Path, folds: Sequence[int | str]) -> Path:
    """Return where the segmentations by these folds lie in an unfinished completion."""
    return unfinished / _PREDICTED / fold_folder(Path(), "_".join(map(str, folds))).name


def annotation_beside(labels: Path) -> Path | None:
    """Return what is known about the annotation of a raw dataset's `labelsTr`, if there is any."""
    folder = labels.resolve()
    found = folder.parent / ANNOTATION_JSON
    return found if folder.name == "labelsTr" and found.is_file() else None


def provenance_beside(labels: Path) -> Path | None:
    """Return the folder that says who drew the voxels of a raw dataset's `labelsTr`, if any."""
    folder = labels.resolve()
    found = folder.parent / PROVENANCE
    return found if folder.name == "labelsTr" and found.is_dir() else None


def probabilities_file(label_file: Path, case: str) -> Path:
    """Return where the probabilities lie that a label file was decided by."""
    return label_file.with_name(f"{case}.npy")


def nnunet_probabilities_file(label_file: Path, case: str) -> Path:
    """Return where nnU-Net puts them."""
    return label_file.with_name(f"{case}.npz")


def dicom_seg_file(label_file: Path, case: str) -> Path:
    """Return where the same segmentation lies as DICOM SEG."""
    return label_file.with_name(f"{case}.dcm")


def prediction_cases_file(output: Path, *, part: int = 0, num_parts: int = 1) -> Path:
    """Return the path of what is odd about predicted scans; parts have a file each."""
    name = PREDICTION_CASES_JSON
    return output / (name if num_parts == 1 else f"part_{part}_of_{num_parts}_{name}")


def uncertainty_file(label_file: Path, case: str, name: str) -> Path:
    """Return where the map called `name` of how sure a label file is lies, of the same format."""
    return label_file.parent / _UNCERTAINTY / f"{case}_{name}{label_file.name[len(case) :]}"


_DATASET_NAME = re.compile(r"Dataset\d{3}_.+")


def _datasets(root: Path) -> list[Path]:
    if not root.is_dir():
        return []
    return sorted(path for path in root.iterdir() if _DATASET_NAME.fullmatch(path.name))


def _find_dataset(dataset: str, root: Path) -> Path:
    if re.fullmatch(r"\d{1,3}", dataset):
        prefix = f"Dataset{int(dataset):03d}_"
        found = [path for path in _datasets(root) if path.name.startswith(prefix)]
    else:
        found = [path for path in (root / dataset, Path(dataset)) if path.is_dir()][:1]
    if len(found) == 1:
        return found[0].resolve()
    there = ", ".join(path.name for path in _datasets(root)) or "none"
    if found:
        names = ", ".join(path.name for path in found)
        raise RequestError(f"Dataset id {dataset} is ambiguous in {root}: {names}. Give the name.")
    raise RequestError(
        f"No dataset {dataset!r} in {root} (datasets there: {there}). Put it there as "
        "DatasetXXX_Name, name another workspace, or give a path.",
        setting="workspace",
    )
