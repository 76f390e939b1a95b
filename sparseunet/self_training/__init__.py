"""Labels that a model gives to what nobody annotated."""
