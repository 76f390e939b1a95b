"""Files that are there already are not written over unasked."""

from collections.abc import Sequence
from pathlib import Path

from sparseunet.errors import RequestError, name_some


def refuse_existing(output: Path, names: Sequence[str]) -> None:
    """Refuse to write over files.

    Raises:
        RequestError: Some of these names are in the folder already.
    """
    there = [name for name in names if (output / name).exists()]
    if there:
        raise RequestError(
            f"{output} holds {name_some(there)} already. Overwrite them, or choose another folder.",
            setting="overwrite",
        )
