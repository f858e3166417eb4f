"""The modalities and the splits, each in the one order that columns, features and files follow."""

MODALITIES = ("text", "acoustic", "visual")

SPLITS = ("train", "valid", "test")
