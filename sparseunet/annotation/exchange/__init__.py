"""Annotation on its way to people's drawing tools and back: one file per family of tools."""

TOOL_NAMES = ("itksnap", "slicer", "mitk", "napari", "nifti")
"""What `export_annotation --format` accepts: the keys of `tools.TOOLS`, which imports more."""
