"""TFN, MulT, MISA and TFR-Net, one file each."""
