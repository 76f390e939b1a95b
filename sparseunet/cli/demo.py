"""See the whole path in a few minutes, on a dataset made on the spot.

Makes scans of shapes in noise, hides 90 % of the slices of every training label, and goes from raw
files to scores twice: once from the remaining slices, once from dense labels.
"""

import argparse
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING

from sparseunet.errors import RequestError
from sparseunet.progress import format_duration

if TYPE_CHECKING:
    from sparseunet.pipeline import PipelineResult
    from sparseunet.workspace import Workspace

_DENSE, _SPARSE = "Dataset901_Shapes", "Dataset902_ShapesSparse"
_DENSITY = 0.1
_MARK = ".made_by_sparseunet_demo"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags of `demo`."""
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        default=Path("sparseunet_demo"),
        metavar="FOLDER",
        help="where everything goes (default: %(default)s); an earlier demo there is replaced",
    )
    parser.add_argument(
        "--iterations", type=int, default=300, help="of each training (default: 300)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of data and training (default: 0)")
    parser.add_argument("-device", "--device", default="auto", help="auto, cpu, cuda or mps")


def run(arguments: argparse.Namespace) -> int:
    """Make the data, run the pipeline on sparse and on dense labels, print and draw the result."""
    from sparseunet.annotation.simulate import simulate_annotation
    from sparseunet.data.load import load_dataset
    from sparseunet.data.synthetic import make_dataset
    from sparseunet.workspace import Workspace

    start = time.monotonic()
    _make_way(arguments.output)
    workspace = Workspace.at(arguments.output)
    print("Making 16 training and 8 test scans ...", flush=True)
    make_dataset(workspace.raw / _DENSE, num_training=16, num_test=8, seed=arguments.seed)
    summary = simulate_annotation(
        load_dataset(workspace.raw / _DENSE),
        density=_DENSITY,
        axis=0,
        seed=arguments.seed,
        folder=workspace.raw / _SPARSE,
    )
    share = summary.num_kept_slices / summary.num_slices
    kept = f"{summary.num_kept_slices} of {summary.num_slices} slices ({share:.0%})"
    results = {}
    for caption, name in ((kept, _SPARSE), ("dense labels", _DENSE)):
        print(f"\nLearning from {caption} ...", flush=True)
        results[caption] = _run_pipeline(name, arguments, workspace)
    print("\n" + _table(results))
    picture = arguments.output / "demo.png"
    _draw(picture, workspace.raw / _SPARSE, results)
    print(f"\nPicture: {picture}\nFiles:   {arguments.output}")
    print(f"Done in {format_duration(time.monotonic() - start)}.")
    return 0


def _make_way(folder: Path) -> None:
    if folder.exists() and any(folder.iterdir()):
        if not (folder / _MARK).is_file():
            raise RequestError(
                f"{folder} is not empty and was not made by the demo; give another folder with -o."
            )
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / _MARK).touch()


def _run_pipeline(
    name: str, arguments: argparse.Namespace, workspace: "Workspace"
) -> "PipelineResult":
    from sparseunet.pipeline import run_pipeline

    return run_pipeline(
        workspace.raw / name,
        workspace=workspace,
        configuration="3d_fullres",
        recipe={
            "iterations": arguments.iterations,
            "iterations_per_epoch": max(1, arguments.iterations // 10),
            "seed": arguments.seed,
        },
        device=arguments.device,
        base_features=16,
        batch_size=2,
    )


def _table(results: dict[str, "PipelineResult"]) -> str:
    width = max(map(len, results)) + 2
    names = list(next(iter(results.values())).scores.classes)
    lines = ["Dice on 8 test scans".ljust(width) + "".join(f"{n:>10}" for n in (*names, "mean"))]
    for caption, result in results.items():
        values = [result.scores.mean(name, "Dice") for name in names]
        cells = (*values, result.scores.foreground_mean("Dice"))
        lines.append(caption.ljust(width) + "".join(f"{value:>10.3f}" for value in cells))
    return "\n".join(lines)


def _draw(picture: Path, sparse: Path, results: dict[str, "PipelineResult"]) -> None:
    """Show slices of one test scan: reference, from sparse labels, from dense labels."""
    from sparseunet.data.io import read_image, read_label_map
    from sparseunet.data.load import load_dataset
    from sparseunet.report.overlay import OverlayRow, draw_slice_overlay

    dataset = load_dataset(sparse)
    reference_file = sorted((sparse / "labelsTs").glob(f"*{dataset.file_ending}"))[0]
    name = reference_file.name
    case = name.removesuffix(dataset.file_ending)
    image = read_image([sparse / "imagesTs" / f"{case}_0000{dataset.file_ending}"])
    maps = {"reference": read_label_map(reference_file)[0]} | {
        f"from {caption}": read_label_map(result.predictions / name)[0]
        for caption, result in results.items()
    }
    depth = image.geometry.shape[0]
    rows = [
        OverlayRow(
            title=f"{case}\nslice {z}",
            image_YX=image.voxels_CZYX[0, z],
            overlays={caption: labels_ZYX[z] for caption, labels_ZYX in maps.items()},
        )
        for z in (depth // 4, depth // 2, 3 * depth // 4)
    ]
    class_names = {value: name for name, value in dataset.labels.classes.items()}
    draw_slice_overlay(
        picture, rows, class_names=class_names, title="A test scan of the sparseunet demo"
    )
