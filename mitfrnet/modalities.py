"""The three modalities, in the one order that columns, features and modules follow."""

MODALITIES = ("text", "acoustic", "visual")
