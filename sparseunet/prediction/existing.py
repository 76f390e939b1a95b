"""Files that are there already are not written over unasked."""

from collections.abc import Sequence
from pathlib import Path

from sparseunet.errors import RequestError


def refuse_existing(output: Path, names: Sequence[str]) -> None:
    """Refuse to write over files.

    Raises:
        RequestError: Some of these names are in the folder already.
    """
    there = [name for name in names if (output / name).exists()]
    if there:
        more = f" and {len(there) - 5} more" if len(there) > 5 else ""
        raise RequestError(
            f"{output} holds {', '.join(there[:5])}{more} already. Overwrite them, or choose "
            "another folder.",
            setting="overwrite",
        )
