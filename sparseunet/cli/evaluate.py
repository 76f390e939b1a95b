"""Compare a folder of segmentations with a folder of references, case by case and class by class.

Writes nnU-Net's summary.json (with distances, volumes and intervals beside nnU-Net's numbers) and a
table as CSV. With --compare two folders of segmentations are compared with each other instead.
What is scored comes from the first of: --dataset-json, PREDICTIONS/dataset.json,
REFERENCES/dataset.json, the dataset.json beside REFERENCES, --labels.

What no person drew (--provenance) does not count, nor does a class in a case in which nobody looked
for it (--annotation).
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from sparseunet.artifacts import atomic_path, require_file_can_be, write_json
from sparseunet.cli.options import add_num_workers_argument, positive_integer
from sparseunet.cli.score_tables import format_comparison, format_scores
from sparseunet.errors import RequestError
from sparseunet.workspace import COMPARISON_JSON, SUMMARY_JSON

if TYPE_CHECKING:
    from sparseunet.data.labels import LabelSchema
    from sparseunet.evaluation.reference_annotation import ReferenceAnnotation
    from sparseunet.evaluation.scores import Scores


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `evaluate`."""
    parser.add_argument("references", type=Path, help="folder of reference label maps")
    parser.add_argument(
        "predictions",
        type=Path,
        nargs="+",
        help="folder of predicted label maps; with --compare two of them, A and B",
    )
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="FILE",
        help=f"summary to write (default: PREDICTIONS/{SUMMARY_JSON}, with --compare "
        f"B/{COMPARISON_JSON}); a .csv goes beside it",
    )
    parser.add_argument(
        "-djfile",
        "--dataset-json",
        type=Path,
        metavar="FILE",
        help="dataset.json that names classes or regions, ignore value and file ending",
    )
    parser.add_argument(
        "-l",
        "--labels",
        type=int,
        nargs="+",
        metavar="VALUE",
        help="label values to score when there is no dataset.json",
    )
    parser.add_argument(
        "-il",
        "--ignore-label",
        type=int,
        metavar="VALUE",
        help="with --labels: value of unannotated reference voxels",
    )
    parser.add_argument(
        "--cases",
        nargs="+",
        metavar="CASE",
        help="score these cases only (default: every reference; a missing prediction is an error)",
    )
    parser.add_argument(
        "--chill",
        action="store_true",
        help="score the predictions there are and leave references without prediction out",
    )
    parser.add_argument(
        "--annotation",
        type=Path,
        metavar="FILE",
        help="annotation.json that says which classes were looked for in each case; others are not "
        "scored there (default: the one beside REFERENCES if that is called labelsTr)",
    )
    parser.add_argument(
        "--provenance",
        type=Path,
        metavar="FOLDER",
        help="who drew each reference voxel; what no person drew does not count (default: "
        "provenanceTr beside REFERENCES if that is called labelsTr)",
    )
    parser.add_argument(
        "--tolerance-mm",
        type=float,
        default=1.0,
        metavar="MM",
        help="of the normalised surface Dice, NSD (default: %(default)s)",
    )
    _add_comparison_arguments(parser)
    _add_detail_arguments(parser)
    add_num_workers_argument(parser, "threads")


def run(arguments: argparse.Namespace) -> int:
    """Score, write the summary and print a table."""
    _check(arguments)
    from sparseunet.evaluation.find_labels import find_labels

    labels, file_ending = find_labels(
        [arguments.predictions[0], arguments.references, arguments.references.resolve().parent],
        label_maps=arguments.references,
        dataset_json=arguments.dataset_json,
        values=arguments.labels,
        ignore=arguments.ignore_label,
    )
    if arguments.compare:
        return _compare(arguments, labels, file_ending)
    from sparseunet.evaluation.evaluate import write_scores

    predictions = arguments.predictions[0]
    output = arguments.output or predictions / SUMMARY_JSON
    membrane = _find_membrane(arguments, labels)
    images = _find_images(arguments, file_ending)
    scores = _score(arguments, predictions, labels, file_ending)
    write_scores(output, scores)
    print(format_scores(scores))
    print(f"Written: {output} and {output.with_suffix('.csv').name}")
    cases = [case.name for case in scores.cases]
    if arguments.per_slice:
        _score_slices(arguments, labels, file_ending, output=output, cases=cases)
    if membrane is not None:
        _score_membranes(
            arguments, labels, file_ending, membrane=membrane, output=output, cases=cases
        )
    if arguments.html is not None:
        from sparseunet.report.worst_cases import write_worst_cases

        write_worst_cases(
            arguments.html,
            scores,
            labels=labels,
            images=images,
            num_cases=arguments.worst,
            provenance=_annotation(arguments, labels, file_ending).provenance,
        )
        print(f"Written: {arguments.html}")
    return 0


def _add_comparison_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--compare",
        action="store_true",
        help="compare B with A case by case: differences, intervals, Wilcoxon's test",
    )
    parser.add_argument(
        "--metrics",
        nargs="+",
        metavar="NAME",
        help="with --compare: what to compare (default: Dice HD95 NSD); the correction for several "
        "tests counts all of them",
    )


def _add_detail_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--per-slice",
        action="store_true",
        help="also Dice of every annotated slice and by source of annotation, to "
        "OUTPUT_slices.json and .csv",
    )
    parser.add_argument(
        "--membrane",
        metavar="CLASS",
        help="name of a membrane: also the Rand F-score of the objects it separates, to "
        "OUTPUT_rand.json and .csv",
    )
    parser.add_argument(
        "--html", type=Path, metavar="FILE", help="page with the worst cases in their worst slice"
    )
    parser.add_argument(
        "--images", type=Path, metavar="FOLDER", help="with --html: scans CASE_0000.ext to draw on"
    )
    parser.add_argument(
        "--worst",
        type=positive_integer,
        default=5,
        metavar="N",
        help="with --html: how many cases (default: %(default)s)",
    )


def _check(arguments: argparse.Namespace) -> None:
    wanted = 2 if arguments.compare else 1
    if len(arguments.predictions) != wanted:
        raise RequestError(
            f"{len(arguments.predictions)} folders of predictions; expected {wanted}. "
            + ("Give A and B." if arguments.compare else "Add --compare to compare two.")
        )
    if not arguments.tolerance_mm >= 0 or arguments.tolerance_mm == float("inf"):
        raise RequestError(f"--tolerance-mm must be 0 or more, found {arguments.tolerance_mm}.")
    named = [] if arguments.provenance is None else [arguments.provenance]
    for folder in (arguments.references, *arguments.predictions, *named):
        if not folder.is_dir():
            raise RequestError(f"The folder {folder} does not exist.")
    for file in filter(None, (arguments.output, arguments.html)):
        require_file_can_be(file)
    needed_by = {
        "--metrics": (arguments.metrics, arguments.compare, "--compare"),
        "--images": (arguments.images, arguments.html, "--html"),
    }
    for flag, (value, other, name) in needed_by.items():
        if value is not None and not other:
            raise RequestError(f"{flag} has no effect without {name}; add it.")
    details = arguments.per_slice or arguments.membrane or arguments.html
    if arguments.compare and details:
        raise RequestError(
            "--compare writes differences only; score a folder alone for --per-slice, --membrane "
            "and --html."
        )


def _score(
    arguments: argparse.Namespace, predictions: Path, labels: "LabelSchema", file_ending: str
) -> "Scores":
    from sparseunet.evaluation.evaluate import evaluate

    return evaluate(
        arguments.references,
        predictions,
        labels=labels,
        file_ending=file_ending,
        num_workers=arguments.num_workers,
        cases=_asked_for(arguments, predictions, file_ending),
        tolerance_mm=arguments.tolerance_mm,
        annotation=_annotation(arguments, labels, file_ending),
    )


def _annotation(
    arguments: argparse.Namespace, labels: "LabelSchema", file_ending: str
) -> "ReferenceAnnotation":
    from sparseunet.evaluation.reference_annotation import find_reference_annotation

    return find_reference_annotation(
        arguments.references,
        annotation=arguments.annotation,
        provenance=arguments.provenance,
        labels=labels,
        file_ending=file_ending,
    )


def _compare(arguments: argparse.Namespace, labels: "LabelSchema", file_ending: str) -> int:
    from sparseunet.evaluation.compare import (
        DEFAULT_METRICS,
        compare_scores,
        comparison_to_json,
        differences_to_csv,
    )

    folder_a, folder_b = arguments.predictions
    scores_a = _score(arguments, folder_a, labels, file_ending)
    scores_b = _score(arguments, folder_b, labels, file_ending)
    metrics = arguments.metrics or DEFAULT_METRICS
    comparisons = compare_scores(scores_a, scores_b, metrics=metrics)
    output = arguments.output or folder_b / COMPARISON_JSON
    content = comparison_to_json(
        comparisons, folder_a=str(folder_a), folder_b=str(folder_b), num_cases=len(scores_a.cases)
    )
    _write(output, content, differences_to_csv(scores_a, scores_b, comparisons))
    print(f"A: {folder_a}\nB: {folder_b}\n{len(scores_a.cases)} cases")
    print(format_comparison(comparisons))
    print(f"Written: {output} and {output.with_suffix('.csv').name}")
    return 0


def _score_slices(
    arguments: argparse.Namespace,
    labels: "LabelSchema",
    file_ending: str,
    *,
    output: Path,
    cases: list[str],
) -> None:
    from sparseunet.evaluation.per_slice import evaluate_slices, parts_to_json, slices_to_csv

    annotation = _annotation(arguments, labels, file_ending)
    parts = evaluate_slices(
        arguments.references,
        arguments.predictions[0],
        labels=labels,
        file_ending=file_ending,
        num_workers=arguments.num_workers,
        provenance=annotation.provenance,
        cases=cases,
        annotated_classes=annotation.classes,
    )
    content = parts_to_json(parts, class_names=list(labels.foreground))
    path = output.with_name(f"{output.stem}_slices.json")
    _write(path, content, slices_to_csv(parts))
    for source, classes in content["by_source"].items():
        scores = ", ".join(f"{name} {each['pooled_Dice']:.4f}" for name, each in classes.items())
        print(f"Pooled Dice on {source} voxels: {scores}")
    print(f"{content['num_slices']} annotated slices: {path} and {path.with_suffix('.csv').name}")


def _score_membranes(
    arguments: argparse.Namespace,
    labels: "LabelSchema",
    file_ending: str,
    *,
    membrane: int,
    output: Path,
    cases: list[str],
) -> None:
    from sparseunet.evaluation.membranes import evaluate_membranes, rand_to_csv, rand_to_json

    scored = evaluate_membranes(
        arguments.references,
        arguments.predictions[0],
        membrane=membrane,
        ignore=labels.ignore,
        file_ending=file_ending,
        num_workers=arguments.num_workers,
        cases=cases,
        not_annotated=[
            case
            for case, classes in _annotation(arguments, labels, file_ending).classes.items()
            if arguments.membrane not in classes
        ],
    )
    content = rand_to_json(scored, membrane=arguments.membrane)
    path = output.with_name(f"{output.stem}_rand.json")
    _write(path, content, rand_to_csv(scored))
    print(f"Rand F-score, mean over {content['n_valid']} cases: {content['mean']['f_score']:.4f}")
    print(f"Written: {path} and {path.with_suffix('.csv').name}")


def _find_membrane(arguments: argparse.Namespace, labels: "LabelSchema") -> int | None:
    """Return the label value of the membrane, if one is to be scored."""
    if arguments.membrane is None:
        return None
    if arguments.membrane not in labels.classes:
        raise RequestError(
            f"No class {arguments.membrane!r}; --membrane names one of {', '.join(labels.classes)}."
        )
    return labels.classes[arguments.membrane]


def _find_images(arguments: argparse.Namespace, file_ending: str) -> dict[str, Path] | None:
    """Return the scan of every case, if pictures are to be drawn on them."""
    if arguments.images is None:
        return None
    from sparseunet.evaluation.pairing import names_in

    cases = _asked_for(arguments, arguments.predictions[0], file_ending)
    images = {
        name: arguments.images / f"{name}_0000{file_ending}"
        for name in cases or names_in(arguments.references, file_ending)
    }
    missing = [path.name for path in images.values() if not path.is_file()]
    if missing:
        raise RequestError(
            f"No {', '.join(missing)} in {arguments.images}; expected one scan per case, CASE_0000 "
            "with the ending of the label maps."
        )
    return images


def _write(path: Path, content: object, table: str) -> None:
    write_json(path, content)
    with atomic_path(path.with_suffix(".csv")) as temporary:
        temporary.write_text(table, encoding="utf-8", newline="")


def _asked_for(
    arguments: argparse.Namespace, predictions: Path, file_ending: str
) -> list[str] | None:
    """Return the names of the cases to score; None for all references."""
    if arguments.chill:
        return _predicted_cases(arguments, predictions, file_ending)
    cases: list[str] | None = arguments.cases
    return cases


def _predicted_cases(arguments: argparse.Namespace, folder: Path, file_ending: str) -> list[str]:
    """Return the cases with a prediction, of those asked for."""
    predicted = sorted(
        path.name.removesuffix(file_ending)
        for path in folder.iterdir()
        if path.name.endswith(file_ending) and (arguments.references / path.name).is_file()
    )
    chosen = [name for name in predicted if arguments.cases is None or name in arguments.cases]
    if not chosen:
        raise RequestError(
            f"No *{file_ending} in {folder} has a reference of the same name in "
            f"{arguments.references}; nothing can be scored."
        )
    return chosen
