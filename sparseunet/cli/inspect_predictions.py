"""Look through segmentations that have no reference, and rank the cases a person should see first.

Checks: pieces of a class far from its largest piece, areas that jump from slice to slice, voxels
outside the body (CT and MR with a clear background), left and right exchanged, classes missing. A
finding says where to look; it does not say that something is wrong.
"""

import argparse
from pathlib import Path

from sparseunet.cli.options import add_num_workers_argument
from sparseunet.errors import RequestError
from sparseunet.workspace import INSPECTION_JSON

_SHOWN = 10


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `inspect_predictions`."""
    parser.add_argument(
        "-i", "--images", required=True, type=Path, metavar="FOLDER", help="scans CASE_0000.ext"
    )
    parser.add_argument(
        "-p",
        "--predictions",
        required=True,
        type=Path,
        metavar="FOLDER",
        help="segmentations CASE.ext",
    )
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="FILE",
        help=f"ranked list (default: PREDICTIONS/{INSPECTION_JSON}); a .csv goes beside it",
    )
    parser.add_argument(
        "-djfile",
        "--dataset-json",
        type=Path,
        metavar="FILE",
        help="dataset.json that names the classes (default: in PREDICTIONS, or beside IMAGES)",
    )
    parser.add_argument(
        "-l",
        "--labels",
        type=int,
        nargs="+",
        metavar="VALUE",
        help="label values when there is no dataset.json",
    )
    parser.add_argument(
        "--annotation",
        type=Path,
        metavar="FILE",
        help="annotation.json: jumps are looked for across its axes, and annotated slices named",
    )
    parser.add_argument(
        "--far-mm",
        type=float,
        default=20.0,
        metavar="MM",
        help="pieces farther than that from the largest one are told (default: %(default)s)",
    )
    add_num_workers_argument(parser, "threads")


def run(arguments: argparse.Namespace) -> int:
    """Check every case, write the ranked list and print its head."""
    from sparseunet.artifacts import atomic_path, write_json
    from sparseunet.data.annotation_record import read_annotation_records
    from sparseunet.evaluation.inspect_predictions import (
        inspect_predictions,
        inspection_to_csv,
        inspection_to_json,
    )

    for folder in (arguments.images, arguments.predictions):
        if not folder.is_dir():
            raise RequestError(f"The folder {folder} does not exist.")
    if not arguments.far_mm >= 0:
        raise RequestError(f"--far-mm must be 0 or more, found {arguments.far_mm}.")
    from sparseunet.evaluation.find_labels import find_labels

    labels, file_ending = find_labels(
        [arguments.predictions, arguments.images.resolve().parent],
        label_maps=arguments.predictions,
        dataset_json=arguments.dataset_json,
        values=arguments.labels,
        ignore=None,
    )
    records = None
    if arguments.annotation is not None:
        records = read_annotation_records(arguments.annotation).cases
    inspection = inspect_predictions(
        arguments.images,
        arguments.predictions,
        labels=labels,
        file_ending=file_ending,
        num_workers=arguments.num_workers,
        records=records,
        far_mm=arguments.far_mm,
    )
    output = arguments.output or arguments.predictions / INSPECTION_JSON
    write_json(output, inspection_to_json(inspection))
    with atomic_path(output.with_suffix(".csv")) as temporary:
        temporary.write_text(inspection_to_csv(inspection), encoding="utf-8", newline="")
    odd = [case for case in inspection.cases if case.findings]
    print(f"{len(odd)} of {len(inspection.cases)} cases should be looked at")
    for rank, case in enumerate(odd[:_SHOWN], start=1):
        print(f"{rank:>3}. {case.name}")
        for each in case.findings:
            print(f"       {each.class_name}: {each.reason}")
    for note in inspection.notes:
        print(note)
    print(f"Written: {output} and {output.with_suffix('.csv').name}")
    return 0
