"""The architectures by the names that their papers give them."""

ARCHITECTURES = {
    "mitfrnet": "MIT-FRNet",
    "tfn": "TFN",
    "mult": "MulT",
    "misa": "MISA",
    "tfrnet": "TFR-Net",
}
