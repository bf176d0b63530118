"""The compiled kernels for CPUs (csrc/), as operators that autograd and torch.compile know.

The library is built when the package is installed, where a compiler is at hand. It knows nothing of torch:
it gets addresses, sizes and strides.
"""

import ctypes
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from reformer.ops.large_tensors import new_empty, new_zeros
from reformer.ops.transforms import inside_transform
from reformer.ops.windows import Layout

_MAX_HEAD_SIZE = 256
_MAX_SLOTS = 1 << 30  # slots of sorted keys of one row, in all rounds: numbered by int32
_LARGE_SUMS = 1 << 25  # floats: rows that would take more than this together wait for one another
_PER_HEAD: tuple[str, ...] = ("highest", "total", "delta")  # tensors [B, H, Tq]
_WINDOWS = ("bucket", "chunk", "local")
_ERRORS = {1: "not enough memory for the work space", 2: "this processor lacks the instruction set"}


class _Rows(ctypes.Structure):
    """Where the vectors of a tensor `[B, H, T, D]` are; strides in elements."""

    _fields_ = [("data", ctypes.c_void_p), *((name, ctypes.c_int64) for name in ("batch", "head", "token"))]

    @classmethod
    def of(cls, x: Tensor) -> "_Rows":
        return cls(x.data_ptr(), *x.stride()[:3])


class _Buckets(ctypes.Structure):
    _fields_ = [
        ("data", ctypes.c_void_p),
        *((name, ctypes.c_int64) for name in ("batch", "head", "round", "token")),
    ]


class _Mask(ctypes.Structure):
    _fields_ = [("data", ctypes.c_void_p), ("batch", ctypes.c_int64), ("token", ctypes.c_int64)]

    @classmethod
    def of(cls, mask: Tensor | None) -> "_Mask":
        return cls() if mask is None else cls(mask.data_ptr(), *mask.stride())


class _Problem(ctypes.Structure):
    """See csrc/problem.h."""

    _fields_ = [
        *((name, ctypes.c_int64) for name in ("B", "H", "R", "Tq", "Tk", "D", "Dv", "bfloat16")),
        *((name, ctypes.c_int64) for name in ("window", "chunk_length", "before", "after")),
        *((name, ctypes.c_int64) for name in ("causal", "penalize_self", "correct_duplicates")),
        ("dropout_seed", ctypes.c_int64),
        ("dropout_threshold", ctypes.c_int64),
        ("dropout_scale", ctypes.c_double),
        *((name, _Rows) for name in ("q", "k", "v", "out")),
        ("highest", ctypes.c_void_p),
        ("total", ctypes.c_void_p),
        *((name, _Rows) for name in ("grad_out", "grad_q", "grad_k", "grad_v")),
        ("delta", ctypes.c_void_p),
        ("q_buckets", _Buckets),
        ("k_buckets", _Buckets),
        ("mask", _Mask),
    ]


class _HashProblem(ctypes.Structure):
    """See csrc/problem.h."""

    _fields_ = [
        *((name, ctypes.c_int64) for name in ("B", "H", "R", "T", "D", "num_factors", "bfloat16")),
        ("x", _Rows),
        ("rotations", ctypes.c_void_p),
        ("factors", ctypes.c_void_p),
        ("mask", _Mask),
        ("buckets", ctypes.c_void_p),
    ]


class DecodeProblem(ctypes.Structure):
    """See csrc/problem.h."""

    _fields_ = [
        *((name, ctypes.c_int64) for name in ("B", "H", "D", "L")),
        *((name, ctypes.c_void_p) for name in ("positions", "q", "k", "v", "placed")),
        *((name, ctypes.c_void_p) for name in ("cos", "sin", "kv", "out")),
        *((name, ctypes.c_int64) for name in ("chunk_length", "chunks_before")),
        *((name, ctypes.c_int64) for name in ("R", "num_rings", "ring_width", "clock")),
        *((name, ctypes.c_void_p) for name in ("free_entries", "rings", "num_members", "born", "rotations")),
        ("num_factors", ctypes.c_int64),
        ("factors", ctypes.c_void_p),
    ]


class NormProblem(ctypes.Structure):
    """See csrc/problem.h."""

    _fields_ = [
        *((name, ctypes.c_int64) for name in ("rows", "features", "bfloat16")),
        ("epsilon", ctypes.c_double),
        *(
            (name, ctypes.c_void_p)
            for name in ("x", "weight", "bias", "out", "moments", "grad", "grad_x", "grad_parameters")
        ),
    ]


class AddProblem(ctypes.Structure):
    """See csrc/problem.h."""

    _fields_ = [
        *((name, ctypes.c_int64) for name in ("count", "bfloat16", "subtract")),
        ("unit", ctypes.c_double),
        *((name, ctypes.c_void_p) for name in ("stream", "update")),
        ("is_within", ctypes.c_int64),
    ]


_PROBLEMS: dict[str, type[ctypes.Structure]] = {
    "problem": _Problem,
    "hash_problem": _HashProblem,
    "decode_problem": DecodeProblem,
    "norm_problem": NormProblem,
    "add_problem": AddProblem,
}
_FUNCTIONS: dict[str, type[ctypes.Structure]] = {
    "hash": _HashProblem,
    "decode": DecodeProblem,
    "layer_norm": NormProblem,
    "add": AddProblem,
}


class _Library:
    """The shared library, or why there is none."""

    instruction_set = 0  # among `instruction_sets`

    @cached_property
    def functions(self) -> ctypes.CDLL | str:
        path = Path(__file__).with_name("_kernels.so")
        if not path.exists():
            return "the kernels were not compiled when this package was installed"
        try:
            functions = ctypes.CDLL(str(path))
        except OSError as error:
            return f"the compiled kernels cannot be loaded: {error}"
        functions.reformer_instruction_set.restype = ctypes.c_char_p
        functions.reformer_instruction_set.argtypes = [ctypes.c_int64]
        for name, problem in _PROBLEMS.items():
            size = getattr(functions, f"reformer_{name}_size", None)
            if size is None or size() != ctypes.sizeof(problem):
                return "the compiled kernels are of another version; install the package again"
        for name, problem in _FUNCTIONS.items():
            function = getattr(functions, f"reformer_{name}")
            function.argtypes = [ctypes.POINTER(problem), ctypes.c_int64, ctypes.c_int64]
        functions.reformer_sums_of_row.argtypes = [ctypes.POINTER(_Problem), *[ctypes.c_int64] * 2]
        functions.reformer_sums_of_row.restype = ctypes.c_int64
        functions.reformer_attend.argtypes = [
            ctypes.POINTER(_Problem), *[ctypes.c_int64] * 2, ctypes.c_void_p, *[ctypes.c_int64] * 3,
        ]  # fmt: skip
        if (parallel := _parallel_of_torch()) is not None:
            functions.reformer_share_threads(parallel)
        return functions

    @cached_property
    def instruction_sets(self) -> list[str]:
        """Those that were compiled and that this processor has, the best one first."""
        names: list[str] = []
        if not isinstance(self.functions, str):
            while name := self.functions.reformer_instruction_set(len(names)):
                names.append(name.decode())
        return names

    def run(self, name: str, *arguments: Any) -> None:
        function = getattr(self.functions, f"reformer_{name}")
        error = function(*arguments, self.instruction_set, torch.get_num_threads())
        if error:
            raise RuntimeError(f'backend "cpu": {_ERRORS[error]}')

    def sums_of_row(self, levels: "ctypes.Array[_Problem]", backward: bool) -> int:
        """Float32 numbers of memory that a row (head of a batch element) takes in `run("attend", ...)`."""
        count: int = self.functions.reformer_sums_of_row(levels, len(levels), backward)  # type: ignore[union-attr]
        return count


def _parallel_of_torch() -> Any:
    """`GOMP_parallel` of the runtime of OpenMP that torch is linked to, or None.

    Its threads stay awake for a while after each of torch's operators: others would share their cores.
    """
    try:
        return ctypes.CDLL(torch._C.__file__).GOMP_parallel
    except (OSError, AttributeError):
        return None


library = _Library()


def unsupported(*tensors: Tensor, num_slots: int = 0) -> str | None:
    """Why the compiled kernels cannot take these tensors `[B, H, T, D]`; None where they can.

    Args:
        tensors: of vectors, on one device.
        num_slots: key slots of a row in all rounds, and what a window reaches beyond them.
    """
    if isinstance(library.functions, str):
        return library.functions
    if any(x.device.type != "cpu" for x in tensors):
        return f"tensors are on {tensors[0].device}"
    if tensors[0].dtype not in (torch.float32, torch.bfloat16):
        return f"tensors are {tensors[0].dtype}, not float32 or bfloat16"
    for size in (x.shape[-1] for x in tensors):
        if size % 8 or not 0 < size <= _MAX_HEAD_SIZE:
            return f"head size {size} is not a multiple of 8 up to {_MAX_HEAD_SIZE}"
    if inside_transform():
        return "one of torch.func's transforms is at work"
    if num_slots > _MAX_SLOTS:
        return f"{num_slots} sorted keys are more than {_MAX_SLOTS}"
    return None


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    levels: Sequence[tuple[Tensor, Tensor]],
    key_padding_mask: Tensor | None,
    *,
    window: str,
    chunk_length: int,
    before: int,
    after: int,
    causal: bool,
    penalize_self: bool = False,
    correct_duplicates: bool = False,
    dropout: float,
    dropout_seed: int,
) -> Tensor:
    """Attention over windows "bucket", "chunk" or "local".

    Args:
        q: `[B, H, Tq, D]`, float32 or bfloat16; see `unsupported`.
        k: `[B, H, Tk, D]`.
        v: `[B, H, Tk, Dv]`.
        levels: (q_buckets, k_buckets) of each level, `[B, H, R, *]`: the next queries, over the first keys.
            Empty for window "local", or one.
        key_padding_mask: bool `[B, Tk]`, True where a real token is.
        window: "bucket", "chunk" or "local".
        chunk_length: tokens in a chunk.
        before: what a query sees backwards: keys ("bucket") or chunks.
        after: what a query sees forwards.
        causal: whether later keys are excluded.
        penalize_self: give a query's own key the score -1e5.
        correct_duplicates: count a key that several rounds show once.
        dropout: probability of dropping a weight.
        dropout_seed: see `reformer.ops.dropout`.

    Returns:
        `[B, H, Tq, Dv]` in the dtype of q.
    """
    return _attention(
        q,
        k,
        v,
        [q_buckets for q_buckets, _ in levels],
        [k_buckets for _, k_buckets in levels],
        key_padding_mask,
        _WINDOWS.index(window),
        chunk_length,
        before,
        after,
        causal,
        penalize_self,
        correct_duplicates,
        dropout,
        dropout_seed,
    )[0]


@torch.library.custom_op("reformer::cpu_attention", mutates_args=(), device_types="cpu")
def _attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    q_buckets: Sequence[Tensor],
    k_buckets: Sequence[Tensor],
    key_padding_mask: Tensor | None,
    window: int,
    chunk_length: int,
    before: int,
    after: int,
    causal: bool,
    penalize_self: bool,
    correct_duplicates: bool,
    dropout: float,
    dropout_seed: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """The output, and of each query `[B, H, Tq]` its highest score (log2 units) and sum of exponentials."""
    options = (window, chunk_length, before, after, causal, penalize_self, correct_duplicates, dropout)
    out = Layout.like(q, v.shape[-1], new_empty)
    highest = q.new_full(q.shape[:3], -torch.inf, dtype=torch.float32)
    total = torch.zeros_like(highest)
    tensors = {"q": q, "k": k, "v": v, "out": out, "highest": highest, "total": total}
    _run_levels(False, tensors, q_buckets, k_buckets, key_padding_mask, *options, dropout_seed)
    return out, highest, total


@torch.library.custom_op("reformer::cpu_attention_backward", mutates_args=(), device_types="cpu")
def _attention_backward(
    grad_out: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    highest: Tensor,
    total: Tensor,
    q_buckets: Sequence[Tensor],
    k_buckets: Sequence[Tensor],
    key_padding_mask: Tensor | None,
    window: int,
    chunk_length: int,
    before: int,
    after: int,
    causal: bool,
    penalize_self: bool,
    correct_duplicates: bool,
    dropout: float,
    dropout_seed: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of q, k and v."""
    options = (window, chunk_length, before, after, causal, penalize_self, correct_duplicates, dropout)
    gradients = {f"grad_{name}": _gradient_like(x) for name, x in (("q", q), ("k", k), ("v", v))}
    tensors = {"q": q, "k": k, "v": v, "out": out, "highest": highest, "total": total} | gradients
    tensors |= {"grad_out": grad_out, "delta": torch.empty_like(highest)}
    _run_levels(True, tensors, q_buckets, k_buckets, key_padding_mask, *options, dropout_seed)
    grad_q, grad_k, grad_v = gradients.values()
    return grad_q, grad_k, grad_v


def _run_levels(
    backward: bool,
    tensors: dict[str, Tensor],
    q_buckets: Sequence[Tensor],
    k_buckets: Sequence[Tensor],
    key_padding_mask: Tensor | None,
    window: int,
    chunk_length: int,
    before: int,
    after: int,
    causal: bool,
    penalize_self: bool,
    correct_duplicates: bool,
    dropout: float,
    dropout_seed: int,
) -> None:
    """Write the output, or the gradients, of the queries of all levels."""
    B, H, Tq, D = tensors["q"].shape
    if not B * H:
        return
    per_head = {key: tensors[key] for key in _PER_HEAD if key in tensors}
    tensors = {key: _with_contiguous_vectors(x) for key, x in tensors.items() if key not in per_head}
    of_keys = {"k", "v", "grad_k", "grad_v"}
    problems, alive = [], []
    start = 0
    for level in range(max(1, len(q_buckets))):
        buckets = None
        num_queries, num_keys, num_rounds = Tq, tensors["k"].shape[2], 1
        if q_buckets:
            buckets = q_buckets[level].long(), k_buckets[level].long()
            num_queries, num_keys, num_rounds = buckets[0].shape[3], buckets[1].shape[3], buckets[0].shape[2]
        problem = _Problem(
            B, H, num_rounds, num_queries, num_keys, D, tensors["v"].shape[3],
            bfloat16=tensors["q"].dtype == torch.bfloat16,
            window=window, chunk_length=chunk_length, before=before, after=after,
            causal=causal, penalize_self=penalize_self, correct_duplicates=correct_duplicates,
            dropout_seed=dropout_seed,
            dropout_threshold=min(round(dropout * 2**32) - 2**31, 2**31 - 1),
            dropout_scale=1 / (1 - dropout) if dropout else 0,
            mask=_Mask.of(key_padding_mask),
        )  # fmt: skip
        # The kernel numbers queries within the level, rows by their number of queries.
        of_level = {key: x[:, :, start : start + num_queries].contiguous() for key, x in per_head.items()}
        for key, x in of_level.items():
            setattr(problem, key, x.data_ptr())
        for field, x in tensors.items():
            setattr(problem, field, _Rows.of(x if field in of_keys else x[:, :, start:]))
        if buckets is not None:
            problem.q_buckets, problem.k_buckets = (_Buckets(x.data_ptr(), *x.stride()) for x in buckets)
        problems.append(problem)
        alive.append((start, buckets, of_level))
        start += num_queries
    levels = (_Problem * len(problems))(*problems)
    sums = _memory_for_sums(tensors["q"], library.sums_of_row(levels, backward))
    library.run("attend", levels, len(levels), backward, sums.data_ptr(), sums.numel())
    if not backward:
        for start, _, of_level in alive:
            for key, x in of_level.items():
                per_head[key][:, :, start : start + x.shape[2]] = x


def _memory_for_sums(q: Tensor, of_row: int) -> Tensor:
    """Memory for rows that are worked on at once: one at least."""
    B, H = q.shape[:2]
    at_once = min(B * H, torch.get_num_threads(), max(1, _LARGE_SUMS // max(1, of_row)))
    return new_empty(q, (at_once * of_row,), torch.float32)


def _gradient_like(x: Tensor) -> Tensor:
    """A tensor with the dtype and layout of x: zeros in float32, to which the kernels add, or bfloat16."""
    new = new_zeros if x.dtype == torch.float32 else new_empty
    return Layout.like(x, x.shape[-1], new)


def _with_contiguous_vectors(x: Tensor) -> Tensor:
    return x if x.stride(-1) == 1 else x.contiguous()


@_attention.register_fake
def _attention_fake(q: Tensor, k: Tensor, v: Tensor, *_: Any) -> tuple[Tensor, Tensor, Tensor]:
    out = Layout.like(q, v.shape[-1], Tensor.new_empty)
    highest = q.new_empty(q.shape[:3], dtype=torch.float32)
    return out, highest, torch.empty_like(highest)


@_attention_backward.register_fake
def _attention_backward_fake(
    grad_out: Tensor, q: Tensor, k: Tensor, v: Tensor, *_: Any
) -> tuple[Tensor, Tensor, Tensor]:
    q, k, v = (Layout.like(x, x.shape[-1], Tensor.new_empty) for x in (q, k, v))
    return q, k, v


def _save_for_backward(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    q, k, v, q_buckets, k_buckets, key_padding_mask, *ctx.options = inputs
    ctx.num_levels = len(q_buckets)
    ctx.save_for_backward(q, k, v, *output, key_padding_mask, *q_buckets, *k_buckets)
    ctx.mark_non_differentiable(*output[1:])


def _differentiate(ctx: Any, grad_out: Tensor, *_: Any) -> tuple[Any, ...]:
    q, k, v, out, highest, total, key_padding_mask, *buckets = ctx.saved_tensors
    q_buckets, k_buckets = buckets[: ctx.num_levels], buckets[ctx.num_levels :]
    gradients = _attention_backward(
        grad_out, q, k, v, out, highest, total, q_buckets, k_buckets, key_padding_mask, *ctx.options
    )
    return (*gradients, [None] * ctx.num_levels, [None] * ctx.num_levels, None, *(None for _ in ctx.options))


_attention.register_autograd(_differentiate, setup_context=_save_for_backward)


@torch.library.custom_op("reformer::cpu_hash", mutates_args=(), device_types="cpu")
def hash_vectors(x: Tensor, rotations: Tensor, factors: Sequence[int], padding_mask: Tensor | None) -> Tensor:
    """Buckets of vectors: see `reformer.ops.lsh_hash`, whose arguments these are.

    Args:
        x: `[B, H, T, D]`, float32 or bfloat16.
        rotations: `[H, D, R, sum(factors) / 2]`.
        factors: even numbers.
        padding_mask: bool `[B, T]`, True where a real token is.

    Returns:
        int64 `[B, H, R, T]`.
    """
    B, H, T, D = x.shape
    buckets = torch.empty(B, H, rotations.shape[2], T, dtype=torch.int64)
    if not buckets.numel():
        return buckets
    x = _with_contiguous_vectors(x)
    rotations = rotations.float().permute(0, 2, 3, 1).contiguous()
    problem = _HashProblem(
        B, H, rotations.shape[1], T, D, len(factors), x.dtype == torch.bfloat16,
        x=_Rows.of(x),
        rotations=rotations.data_ptr(),
        factors=ctypes.cast((ctypes.c_int64 * len(factors))(*factors), ctypes.c_void_p),
        mask=_Mask.of(padding_mask),
        buckets=buckets.data_ptr(),
    )  # fmt: skip
    library.run("hash", ctypes.byref(problem))
    return buckets


@hash_vectors.register_fake
def _hash_fake(x: Tensor, rotations: Tensor, factors: Sequence[int], padding_mask: Tensor | None) -> Tensor:
    B, H, T, _ = x.shape
    return x.new_empty(B, H, rotations.shape[2], T, dtype=torch.int64)
