"""Which slices to annotate, and annotations on their way to and from people."""
