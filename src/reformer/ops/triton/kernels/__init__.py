"""The kernels themselves; importing a module of this package imports Triton."""
