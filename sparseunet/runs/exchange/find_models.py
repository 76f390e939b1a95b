"""Find trained models in what `-m` names: a run, a model folder of nnU-Net, or a file of either."""

import tempfile
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Literal

from sparseunet.errors import DatasetError, RequestError
from sparseunet.runs.exchange.archive import unpack
from sparseunet.runs.exchange.model_file import read_manifest
from sparseunet.workspace import (
    CHECKPOINT_BEST,
    CHECKPOINT_FINAL,
    DATASET_JSON,
    MANIFEST_JSON,
    NNUNET_CHECKPOINTS,
    PLANS_JSON,
    RUN_JSON,
    folds_of,
)

_WANTED = {
    MANIFEST_JSON,
    RUN_JSON,
    CHECKPOINT_FINAL,
    CHECKPOINT_BEST,
    PLANS_JSON,
    DATASET_JSON,
    *NNUNET_CHECKPOINTS,
}
"""Files of an archive that are read; pictures, logs and pickles are never unpacked."""
_DEEPEST = 2
"""A model lies in the folder that is named, or in it as `Dataset/Model`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FoundModel:
    """A trained model on disk, not yet read."""

    folder: Path
    """A run, or `Trainer__Plans__configuration`."""
    origin: Path
    """What the user named."""
    configuration: str
    """By the name of the folder; what the model says is known when it is loaded."""
    kind: Literal["sparseunet", "nnunet"]
    folds: tuple[int | str, ...]
    functions: Collection[str] | None = ()
    """See `TrainedModel.functions`."""

    @property
    def default_folds(self) -> tuple[int | str, ...]:
        """What to predict with when nobody says: `all` if trained, else every number."""
        return ("all",) if "all" in self.folds else self.folds

    def __str__(self) -> str:
        return f"{self.folder.name} ({self.configuration}, folds {' '.join(map(str, self.folds))})"


@contextmanager
def open_models(
    path: Path, *, functions: Collection[str] | None = ()
) -> Iterator[tuple[FoundModel, ...]]:
    """Find the trained models at `path`, unpacked for as long as the block runs if it is a file.

    A model file of ours is checked against its manifest and gives the model that it was made for
    first, and then the first stage of a cascade.

    Args:
        path: Folder of a run; folder of a model of nnU-Net, or of a dataset with such models; a
            model file of ours, or a zip archive by nnUNetv2_export_model_to_zip.
        functions: Functions of the user's, `package.module:function`, that the models may name and
            that are then imported: none by default. None allows any, and is for runs of the
            user's own; it means nothing for a file.

    Raises:
        RequestError: There is no trained model.
        UnreadableFileError: The file is damaged, or refused as dangerous.
    """
    if path.is_dir():
        yield _found(_models_in(path, origin=path), path, functions)
    elif path.is_file():
        with tempfile.TemporaryDirectory(
            prefix="sparseunet-model-", ignore_cleanup_errors=True
        ) as name:
            folder = Path(name)
            unpack(path, folder, wanted=_is_wanted)
            models = _models_in(folder, origin=path)
            if (folder / MANIFEST_JSON).is_file():
                main = folder / read_manifest(folder, origin=path).model
                models.sort(key=lambda model: model.folder != main)
                models = models if models and models[0].folder == main else []
            with _naming(path, unpacked=folder):
                yield _found(models, path, functions or ())
    else:
        raise RequestError(
            f"{path} is no folder and no file; expected the folder of a run, a model folder of "
            "nnU-Net, or a file of either."
        )


def choose_model(models: Sequence[FoundModel], configuration: str | None = None) -> FoundModel:
    """Return the model of a configuration, or the only one there is.

    Args:
        models: From `open_models`.
        configuration: `2d`, `3d_fullres`, ..., or a folder's name where that names several models.
            None takes the only one; in a model file of ours the one that it was made for.

    Raises:
        RequestError: There is none, or several; lists them.
    """
    fitting = [
        model for model in models if configuration in (None, model.configuration, model.folder.name)
    ]
    if fitting and (len(fitting) == 1 or (configuration is None and _is_model_file(fitting))):
        return fitting[0]
    there = "\n".join(f"  {model}" for model in models)
    asked = "" if configuration is None else f" of configuration {configuration}"
    count = "several models" if fitting else "no model"
    raise RequestError(
        f"{models[0].origin} holds {count}{asked}; choose one by its configuration or the "
        f"name of its folder:\n{there}",
        setting="configuration",
    )


def _is_model_file(models: Sequence[FoundModel]) -> bool:
    return models[0].origin.is_file() and models[0].kind == "sparseunet"


def _is_wanted(name: PurePosixPath) -> bool:
    return name.name in _WANTED and len(name.parts) <= 2 + _DEEPEST


@contextmanager
def _naming(path: Path, *, unpacked: Path) -> Iterator[None]:
    """Let errors name the archive in place of the folder that it was unpacked to, which is gone."""
    try:
        yield
    except DatasetError as error:
        raise DatasetError(
            [
                replace(problem, file=problem.file.replace(str(unpacked), str(path)))
                for problem in error.problems
            ]
        ) from None
    except RequestError as error:
        message = str(error).replace(str(unpacked), str(path))
        raise RequestError(message, setting=error.setting) from None


def _found(
    models: list[FoundModel], path: Path, functions: Collection[str] | None
) -> tuple[FoundModel, ...]:
    if models:
        return tuple(replace(model, functions=functions) for model in models)
    if path.suffix in (".pt", ".pth"):
        raise RequestError(
            f"{path} is a checkpoint, which does not say how to preprocess scans; give the folder "
            f"of its model, which holds its fold (for .pth also {PLANS_JSON} and {DATASET_JSON})."
        )
    expected = (
        f"expected fold_0/{CHECKPOINT_FINAL} (a run), or {PLANS_JSON}, {DATASET_JSON} and "
        f"fold_0/{NNUNET_CHECKPOINTS[0]} (a model of nnU-Net)."
    )
    if path.is_dir() and (folds := _folds_of_nnunet(path)):
        missing = [name for name in (PLANS_JSON, DATASET_JSON) if not (path / name).is_file()]
        raise RequestError(
            f"{path} holds folds {' '.join(map(str, folds))} of a model of nnU-Net, but no "
            f"{' and no '.join(missing)}; {expected}"
        )
    raise RequestError(f"{path} holds no fold that was trained to the end; {expected}")


def _models_in(root: Path, *, origin: Path) -> list[FoundModel]:
    folders = [root]
    for depth in range(1, _DEEPEST + 1):
        folders += sorted(root.glob("/".join("*" * depth)))
    found = (_model_at(folder, origin) for folder in folders if folder.is_dir())
    return [model for model in found if model is not None]


def _model_at(folder: Path, origin: Path) -> FoundModel | None:
    ours = folds_of(folder, CHECKPOINT_FINAL)
    if ours:
        return FoundModel(
            folder=folder,
            origin=origin,
            configuration=folder.parent.name,
            kind="sparseunet",
            folds=ours,
        )
    theirs = _folds_of_nnunet(folder)
    if not theirs or not all((folder / name).is_file() for name in (PLANS_JSON, DATASET_JSON)):
        return None
    return FoundModel(
        folder=folder,
        origin=origin,
        configuration=folder.name.split("__")[-1],
        kind="nnunet",
        folds=theirs,
    )


def _folds_of_nnunet(folder: Path) -> tuple[int | str, ...]:
    folds = {fold for name in NNUNET_CHECKPOINTS for fold in folds_of(folder, name)}
    return tuple(sorted(folds, key=lambda fold: (isinstance(fold, str), fold)))
