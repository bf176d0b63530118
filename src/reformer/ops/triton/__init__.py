"""Kernels for CUDA in Triton, and the operators that launch them.

Nothing here imports Triton before a kernel is launched: the package works without it. With
`TRITON_INTERPRET=1` in the environment the kernels run on CPU tensors, slowly, for tests.
"""
