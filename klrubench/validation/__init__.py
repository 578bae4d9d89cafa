"""What klrubench does held against what real kernels did: observations of an emulated machine, published tables,
a person's own counters.
"""
