"""Preprocessed cases of which as many as fit lie decoded in memory."""

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

from sparseunet.preprocessing.manifest import Manifest
from sparseunet.preprocessing.store import Box, CaseStore, Patch


class CasesInMemory:
    """Read patches of some cases of a store, from memory where a case lies there.

    Cases are decoded at once, in the order given, until the next would not fit; the others are
    read from their files patch by patch. Forked processes share the memory. A copy sent to another
    process by pickling holds no case and reads from files.
    """

    def __init__(self, store: CaseStore, cases: Sequence[str], *, max_bytes: int) -> None:
        """Decode cases.

        Raises:
            UnreadableFileError: A file is damaged or missing.
        """
        self.store = store
        self._cases: dict[str, Patch] = {}
        free = max_bytes
        for case in cases:
            manifest = store.manifest(case)
            free -= _decoded_bytes(manifest)
            if free < 0:
                break
            self._cases[case] = _read_whole(store, manifest)

    def __getstate__(self) -> dict[str, Any]:
        return {"store": self.store, "_cases": {}}

    @property
    def kept(self) -> tuple[str, ...]:
        """Names of the cases in memory."""
        return tuple(self._cases)

    def read_patch(self, case: str, start: Box, stop: Box) -> Patch:
        """Return the same as `CaseStore.read_patch`; the arrays may be read-only.

        Raises:
            ValueError: The box reaches outside.
            UnreadableFileError: A file is damaged or missing.
        """
        whole = self._cases.get(case)
        shape = self.store.manifest(case).shape
        bounds = zip(start, stop, shape, strict=True)
        if whole is None or not all(0 <= first <= last <= size for first, last, size in bounds):
            return self.store.read_patch(case, start, stop)
        z, y, x = (slice(first, last) for first, last in zip(start, stop, strict=True))
        confidence_ZYX = whole.confidence_ZYX
        return Patch(
            image_CZYX=whole.image_CZYX[:, z, y, x],
            labels_ZYX=whole.labels_ZYX[z, y, x],
            source_ZYX=whole.source_ZYX[z, y, x],
            confidence_ZYX=None if confidence_ZYX is None else confidence_ZYX[z, y, x],
            inside_ZYX=whole.inside_ZYX[z, y, x],
        )


def _decoded_bytes(manifest: Manifest) -> int:
    voxels = prod(manifest.shape)
    return sum(
        np.dtype(stored.dtype).itemsize * voxels * (manifest.num_channels if key == "image" else 1)
        for key, stored in manifest.arrays.items()
        if stored.constant is None
    )


def _read_whole(store: CaseStore, manifest: Manifest) -> Patch:
    patch = store.read_patch(manifest.case, (0, 0, 0), manifest.shape)
    arrays = dict(patch._asdict())
    for name, array in arrays.items():
        stored = manifest.arrays.get(name.rpartition("_")[0])
        if array is not None and (stored is None or stored.constant is not None):
            one_value = np.full((1,) * array.ndim, array.flat[0], array.dtype)
            arrays[name] = np.broadcast_to(one_value, array.shape)
        elif array is not None:
            array.flags.writeable = False
    return Patch(**arrays)
