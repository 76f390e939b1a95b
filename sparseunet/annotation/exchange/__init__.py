"""Annotation on its way to people's drawing tools and back: one file per family of tools."""

TOOL_NAMES = ("itksnap", "slicer", "mitk", "napari", "nifti")
"""What `export_annotation` accepts as format: the keys of `tools.TOOLS`, which imports more."""
