"""Which slices of which scans to annotate: one file per family of selectors."""

from collections.abc import Mapping

from sparseunet.annotation.selection.fixed import select_fixed
from sparseunet.annotation.selection.slices import Selector

SELECTORS: Mapping[str, Selector] = {"fixed": select_fixed}
"""Name on the command line to selector."""
