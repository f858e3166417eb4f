"""MIT-FRNet, one module for each part of section 3 of the paper."""
