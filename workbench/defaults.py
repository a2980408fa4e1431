"""What the workbench opens when nothing is named; imports nothing, so that help stays quick."""

DEFAULT_SOURCE = "teaching"
DEFAULT_POLICY = "default+policy"
DEFAULT_REFERENCE = "default"
