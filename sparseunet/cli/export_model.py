"""Hand a trained model out: as one file with a manifest, or as nnU-Net 2 reads it.

The file holds weights and descriptions, and no code; `predict -m FILE` and `import_model FILE`
read it and check every part against its manifest. --as nnunet writes
Dataset/nnUNetTrainer__Plans__configuration instead, into a folder or a zip file, for
nnUNetv2_predict_from_modelfolder or nnUNetv2_install_pretrained_model_from_zip.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sparseunet.cli.environment import resolve_workspace
from sparseunet.errors import RequestError
from sparseunet.runs.find import find_run, finished_folds, parse_fold
from sparseunet.workspace import Workspace, fold_folder


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags of `export_model`."""
    parser.add_argument(
        "-d", "--dataset", required=True, help="id or name of the dataset it was trained on"
    )
    parser.add_argument("-c", "--configuration", required=True, help="2d, 3d_fullres, ...")
    parser.add_argument("--run", metavar="ID", help="name of the run (default: the last finished)")
    parser.add_argument(
        "-f", "--folds", nargs="+", metavar="FOLD", help="folds to hand out (default: all finished)"
    )
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        required=True,
        metavar="PATH",
        help="a new file, NAME.zip; with --as nnunet also a folder",
    )
    parser.add_argument(
        "--as",
        dest="form",
        choices=("file", "nnunet"),
        default="file",
        help="file: one of ours; nnunet: what nnU-Net 2 predicts with",
    )
    parser.add_argument(
        "--licence", metavar="TEXT", help="of the model (default: what dataset.json says)"
    )
    parser.add_argument(
        "--description", metavar="TEXT", help="of the model (default: what dataset.json says)"
    )


def run(arguments: argparse.Namespace) -> int:
    """Find the run, write it, and say what was written."""
    from sparseunet.runs.exchange.export_model import export_model, export_to_nnunet

    workspace = resolve_workspace(arguments.workspace)
    name = workspace.dataset_name(arguments.dataset)
    asked = tuple(parse_fold(fold) for fold in arguments.folds or ())
    folder = find_run(workspace, name, arguments.configuration, asked, run=arguments.run)
    folds = asked or finished_folds(folder)
    if arguments.form == "nnunet":
        if arguments.licence or arguments.description:
            raise RequestError(
                "--licence and --description go into files of ours; nnU-Net has no place for them."
            )
        for model in export_to_nnunet(folder, folds, arguments.output):
            print(f"{arguments.output}: {model}, folds {' '.join(map(str, folds))}")
        return 0
    if arguments.output.suffix != ".zip":
        raise RequestError(f"{arguments.output} must be called NAME.zip.")
    manifest = export_model(
        folder,
        folds,
        arguments.output,
        annotated=_annotated(workspace, name, folder, folds),
        licence=arguments.licence,
        description=arguments.description,
    )
    print(
        f"{arguments.output}: {manifest.model}, folds {' '.join(map(str, folds))}, licence "
        f"{manifest.licence or 'not stated (--licence)'}"
    )
    return 0


def _annotated(
    workspace: Workspace, dataset_name: str, run_folder: Path, folds: Sequence[int | str]
) -> dict[str, Any] | None:
    """Return how densely the training cases are annotated, if that was measured here."""
    from dataclasses import asdict

    from sparseunet.data.density import read_label_densities
    from sparseunet.planning.label_density import summarise_label_density
    from sparseunet.runs.record import read_record

    path = workspace.label_density_file(dataset_name)
    if not path.is_file():
        return None
    runs = [read_record(fold_folder(run_folder, fold)) for fold in folds]
    cases = {case for run in runs for case in run.training_cases}
    known = [density for density in read_label_densities(path) if density.name in cases]
    return asdict(summarise_label_density(known)) if len(known) == len(cases) > 0 else None
