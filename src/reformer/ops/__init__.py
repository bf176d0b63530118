"""Functions on tensors: no modules, no parameters, no random numbers."""

from reformer.ops.attention import local_attention, lsh_attention, lsh_attention_by_level
from reformer.ops.hashing import lsh_hash

__all__ = ["local_attention", "lsh_attention", "lsh_attention_by_level", "lsh_hash"]
