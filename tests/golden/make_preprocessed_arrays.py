"""Let nnU-Net preprocess a few small phantoms, and store what went in and came out.

    python tests/golden/make_preprocessed_arrays.py --nnunet-bin NNUNET/bin

Every case becomes one file of `tests/golden/preprocessed_arrays`, below 100 kB, so that a test can
compare without nnU-Net. Needs tests/performance on the path, where the phantoms are described.
"""

import argparse
import sys
import tempfile
from pathlib import Path

import blosc2
import numpy as np
import SimpleITK

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "performance"))

from both_packages import Bench  # noqa: E402 - only there once the path is set
from synthetic_ct import write_dataset  # noqa: E402

DATASETS = {
    "Dataset001_CT": {
        "shape": (12, 20, 18),
        "spacings_mm": ((2.0, 1.0, 1.0), (2.2, 0.8, 0.9), (3.4, 1.0, 1.0), (4.0, 1.1, 0.9)),
        "channels": ("CT",),
    },
    "Dataset002_MR": {
        "shape": (16, 14, 9),
        "spacings_mm": ((1.0, 1.1, 2.0), (1.2, 0.8, 3.0), (0.9, 0.9, 2.4)),
        "channels": ("T1", "T2"),
    },
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nnunet-bin", type=Path, required=True)
    parser.add_argument("-o", "--output", type=Path, default=HERE / "preprocessed_arrays")
    arguments = parser.parse_args()
    arguments.output.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as root:
        where = Bench(root=Path(root), nnunet_bin=arguments.nnunet_bin)
        for name, described in DATASETS.items():
            folder = write_dataset(where.root / "made" / name, **described)
            where.link(folder)
            number = int(name[7:10])
            workers = ("-npfp", 2, "-np", 2)
            where.run(
                where.nnunet("plan_and_preprocess", "-d", number, "-c", "3d_fullres", *workers)
            )
            for case in range(len(described["spacings_mm"])):
                _store(where, folder, f"case_{case:03d}", arguments.output)


def _store(where: Bench, raw: Path, case: str, output: Path) -> None:
    preprocessed = where.preprocessed("nnunet", raw.name)
    channels = sorted((raw / "imagesTr").glob(f"{case}_*"))
    files = [SimpleITK.ReadImage(str(path)) for path in channels]
    label = SimpleITK.ReadImage(str(raw / "labelsTr" / f"{case}.nii.gz"))
    arrays = preprocessed / "nnUNetPlans_3d_fullres"
    path = output / f"{raw.name[11:]}_{case}.npz"
    np.savez_compressed(
        path,
        plans=np.array((preprocessed / "nnUNetPlans.json").read_text()),
        spacing_mm=np.array(files[0].GetSpacing()[::-1]),
        voxels_CZYX=np.stack([SimpleITK.GetArrayFromImage(file) for file in files]),
        labels_ZYX=SimpleITK.GetArrayFromImage(label),
        nnunet_image_CZYX=blosc2.open(str(arrays / f"{case}.b2nd"))[:],
        nnunet_labels_ZYX=blosc2.open(str(arrays / f"{case}_seg.b2nd"))[0],
    )
    print(f"{path}: {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
