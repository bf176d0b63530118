"""Compile the Triton kernels for an H100 ahead of time, as the test asks: the interpreter forgives what the
compiler does not. Prints what each kernel needs, as JSON. Run without TRITON_INTERPRET.

    python -m tests.ops.compile_kernels '{"kernel": "forward", "dtype": "bf16", "D": 64, ...}' ...
"""

import json
import re
import subprocess
import sys
import tempfile
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from reformer.ops.triton.kernels.backward_keys import _attention_bwd_keys_kernel
from reformer.ops.triton.kernels.backward_queries import _attention_bwd_queries_kernel
from reformer.ops.triton.kernels.forward import _attention_fwd_kernel
from reformer.ops.triton.kernels.hash import _hash_kernel

KERNELS = {
    "forward": _attention_fwd_kernel,
    "backward of queries": _attention_bwd_queries_kernel,
    "backward of keys": _attention_bwd_keys_kernel,
    "hash": _hash_kernel,
}
FLOAT32 = ("highest_ptr", "total_ptr", "delta_ptr", "rotations_ptr", "sum_ptr", "sum_k_ptr", "sum_v_ptr")
VECTORS = (
    "q_ptr",
    "k_ptr",
    "v_ptr",
    "x_ptr",
    "out_ptr",
    "grad_out_ptr",
    "grad_q_ptr",
    "grad_k_ptr",
    "grad_v_ptr",
)
DIVISIBLE = ("batch", "head", "token")  # strides


def signature(name: str, dtype: str) -> str:
    """The type of an argument as Triton writes it."""
    if name in VECTORS:
        return f"*{dtype}"
    if name in FLOAT32:
        return "*fp32"
    if name == "mask_ptr":
        return "*u8"
    if name == "buckets_ptr":
        return "*i64"
    if name.endswith("_ptr"):
        return "*i32"
    return "fp32" if name == "dropout_scale" else "i32"


def compile_kernel(kernel: str, dtype: str, num_warps: int, **constants: Any) -> dict[str, Any]:
    function = KERNELS[kernel]
    types, values, attributes = {}, {}, {}
    for index, parameter in enumerate(function.params):
        name = parameter.name
        if parameter.is_constexpr:
            types[name], values[(index,)] = "constexpr", constants[name]
            continue
        types[name] = signature(name, dtype)
        if types[name].startswith("*") or name.endswith(DIVISIBLE):
            attributes[(index,)] = [["tt.divisibility", 16]]
    source = ASTSource(fn=function, signature=types, constexprs=values, attrs=attributes)
    compiled = triton.compile(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": num_warps})
    return {
        "shared_bytes": compiled.metadata.shared,
        "tensor_cores": bool(re.search(r"\b(wgmma|mma)\.", compiled.asm["ptx"])),
        "atomics": bool(re.search(r"\b(atom|red)\.", compiled.asm["ptx"])),
        **resources(compiled.asm["cubin"]),
    }


def resources(cubin: bytes) -> dict[str, int]:
    """Registers and bytes of stack (registers that are spilled) of a thread."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        command = [triton.knobs.nvidia.cuobjdump.path, "--dump-resource-usage", file.name]
        usage = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    return {
        name: int(re.search(rf"{key}:(\d+)", usage)[1])
        for name, key in (("registers", "REG"), ("stack_bytes", "STACK"))
    }


if __name__ == "__main__":
    print(json.dumps([compile_kernel(**json.loads(text)) for text in sys.argv[1:]]))
