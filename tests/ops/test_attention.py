"""What the public functions refuse, and how they choose a backend."""

import logging
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from reformer.ops import attention, cpu, local_attention, lsh_attention, lsh_attention_by_level

B, H, T, D, R = 2, 3, 9, 8, 4
FUNCTIONS = ["lsh_attention", "lsh_attention_by_level", "local_attention"]


def zeros(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.zeros(shape, dtype=dtype)


def buckets(*shape: int, dtype: torch.dtype = torch.int64) -> Tensor:
    return torch.zeros(shape or (B, H, R, T), dtype=dtype)


def call(function: str, **changes: Any) -> Tensor:
    """Call a function with fitting arguments, but for the changes."""
    arguments: dict[str, Any] = {name: zeros(B, H, T, D) for name in "qkv"}
    if function == "local_attention":
        return local_attention(**arguments | changes)
    if function == "lsh_attention":
        return lsh_attention(**arguments | {"q_buckets": buckets()} | changes)
    return lsh_attention_by_level(**arguments | {"buckets": [buckets()]} | changes)


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"q": zeros(H, T, D)}, r"q, k and v must be \[B, H, T, D\], got \[3, 9, 8\] and \[2, 3, 9, 8\]"),
        ({"k": zeros(H, T, D)}, r"q, k and v must be \[B, H, T, D\], got \[2, 3, 9, 8\] and \[3, 9, 8\]"),
        (
            {"k": zeros(B, H, T, 4)},
            r"k must be \[B=2, H=3, Tk, D=8\] like q and v .*, got \[2, 3, 9, 4\] and",
        ),
        ({"k": zeros(B, 1, T, D)}, r"k must be .*, got \[2, 1, 9, 8\] and \[2, 3, 9, 8\]"),
        ({"k": zeros(1, H, T, D)}, r"k must be .*, got \[1, 3, 9, 8\] and \[2, 3, 9, 8\]"),
        ({"v": zeros(B, H, T)}, r"v \[B, H, Tk, Dv\], got \[2, 3, 9, 8\] and \[2, 3, 9\]"),
        ({"v": zeros(B, H, 8, D)}, r"v \[B, H, Tk, Dv\], got \[2, 3, 9, 8\] and \[2, 3, 8, 8\]"),
        ({"q": zeros(B, H, 10, D)}, r"no more queries than keys, got 10 and 9"),
        ({"q": zeros(B, H, 0, D)}, r"at least one query and no more queries than keys, got 0 and 9"),
        (
            {"v": zeros(B, H, T, D, dtype=torch.float64)},
            r"must share a floating dtype, got torch.float32, torch.float32 and torch.float64",
        ),
        ({"k": zeros(B, H, T, D, dtype=torch.bfloat16)}, r"must share a floating dtype, got .*bfloat16"),
        (
            {name: zeros(B, H, T, D, dtype=torch.int64) for name in "qkv"},
            r"must share a floating dtype, got torch.int64, torch.int64 and torch.int64",
        ),
        (
            {"key_padding_mask": zeros(B, T)},
            r"key_padding_mask must be bool \[B=2, Tk=9\], got torch.float32 \[2, 9\]",
        ),
        (
            {"key_padding_mask": zeros(B, H, dtype=torch.bool)},
            r"key_padding_mask must be bool \[B=2, Tk=9\], got torch.bool \[2, 3\]",
        ),
        ({"chunk_length": 0}, r"chunk_length must be at least 1, got 0"),
        ({"num_chunks_before": -1}, r"num_chunks_before and num_chunks_after must not be .*, got -1 and 0"),
        ({"dropout": 1.0}, r"dropout must be in \[0, 1\), got 1.0"),
        ({"dropout": -0.1}, r"dropout must be in \[0, 1\), got -0.1"),
        ({"dropout": float("nan")}, r"dropout must be in \[0, 1\), got nan"),
        (
            {"backend": "gpu"},
            r"backend must be \"auto\", \"reference\", \"torch\", \"cpu\" or \"triton\", got 'gpu'",
        ),
    ],
)
def test_errors_of_all_functions(function: str, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as raised:
        call(function, **changes)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("function", ["lsh_attention", "local_attention"])
def test_error_of_chunks_after(function: str) -> None:
    with pytest.raises(ValueError, match="must not be negative, got 1 and -2"):
        call(function, num_chunks_after=-2)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"window": "both"}, r"window must be \"bucket\" or \"chunk\", got 'both'"),
        ({"q_buckets": buckets(B, R, T)}, r"q_buckets must be \[B=2, H=3, R, T=9\], got \[2, 4, 9\]"),
        ({"q_buckets": buckets(B, H, R, 8)}, r"q_buckets must be \[B=2, H=3, R, T=9\], got \[2, 3, 4, 8\]"),
        ({"q_buckets": buckets(B, 1, R, T)}, r"q_buckets must be \[B=2, H=3, R, T=9\], got \[2, 1, 4, 9\]"),
        ({"k_buckets": buckets(1, H, R, T)}, r"k_buckets must be \[B=2, H=3, R, T=9\], got \[1, 3, 4, 9\]"),
        ({"q": zeros(B, H, 5, D)}, r"q_buckets must be \[B=2, H=3, R, T=5\], got \[2, 3, 4, 9\]"),
        (
            {"q": zeros(B, H, 5, D), "q_buckets": buckets(B, H, R, 5)},
            r"k_buckets must be \[B=2, H=3, R, T=9\], got \[2, 3, 4, 5\]",
        ),
        ({"k_buckets": buckets(B, H, 2, T)}, r"q_buckets has 4 rounds, k_buckets 2"),
        *(
            ({name: buckets(dtype=dtype)}, rf"{name} must be int64 or int32, got {dtype}")
            for name in ("q_buckets", "k_buckets")
            for dtype in (torch.float32, torch.bool, torch.uint8, torch.int16, torch.complex64)
        ),
        (
            {
                "window": "chunk",
                "q": zeros(B, H, 5, D),
                "q_buckets": buckets(B, H, R, 5),
                "k_buckets": buckets(),
            },
            r'window "chunk" needs queries and keys with the same positions and buckets',
        ),
        (
            {"window": "chunk", "k_buckets": buckets() + 1},
            r'window "chunk" needs queries and keys with the same positions and buckets',
        ),
    ],
)
def test_errors_of_lsh_attention(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as raised:
        call("lsh_attention", **changes)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bool], ids=str)
def test_error_of_bucket_dtypes_in_levels(dtype: torch.dtype) -> None:
    with pytest.raises(ValueError, match="must be int64 or int32"):
        call("lsh_attention_by_level", buckets=[buckets(dtype=dtype)])


@pytest.mark.parametrize("function", FUNCTIONS)
def test_a_backend_that_cannot_run_says_so(function: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRITON_INTERPRET")
    with pytest.raises(NotImplementedError, match='backend "triton" cannot run here: '):
        call(function, backend="triton")


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64], ids=str)
def test_int32_and_int64_buckets(dtype: torch.dtype) -> None:
    g = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(B, H, T, D, generator=g) for _ in range(3))
    ids = torch.randint(4, (B, H, R, T), generator=g)
    mask = torch.rand(B, T, generator=g) < 0.7
    for window in ("bucket", "chunk"):
        options: dict[str, Any] = {"window": window, "key_padding_mask": mask, "chunk_length": 2}
        expected = lsh_attention(q, k, v, ids, backend="reference", **options)
        out = lsh_attention(q, k, v, ids.to(dtype), ids, backend="torch", **options)
        assert (out - expected).abs().max() < 1e-5


@pytest.fixture
def _nothing_logged_yet() -> None:
    attention._log_choice.cache_clear()


@pytest.mark.usefixtures("_nothing_logged_yet")
def test_auto_is_the_tiled_path_where_nothing_is_compiled_and_says_so_once(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cpu.library, "functions", "there was no compiler")
    g = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(B, H, T, D, generator=g) for _ in range(3))
    ids = torch.randint(4, (B, H, R, T), generator=g)
    calls: list[Callable[[Any], Tensor]] = [
        lambda backend: lsh_attention(q, k, v, ids, backend=backend),
        lambda backend: lsh_attention_by_level(q, k, v, [ids], backend=backend),
        lambda backend: local_attention(q, k, v, backend=backend),
    ]
    with caplog.at_level(logging.INFO, logger="reformer"):
        for function in calls:
            assert torch.equal(function("auto"), function("torch"))
            assert not torch.equal(function("auto"), function("reference"))
    assert [record.getMessage() for record in caplog.records] == [
        'attention on cpu uses backend "torch": there was no compiler'
    ]


@pytest.mark.usefixtures("_nothing_logged_yet")
def test_an_explicit_backend_logs_nothing(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, logger="reformer"):
        call("lsh_attention", backend="torch")
        call("lsh_attention", backend="reference")
    assert not caplog.records


def test_memory_is_poisoned_here() -> None:
    """The other tests of this folder rely on it."""
    assert torch.empty(1000).isnan().all()
    assert zeros(2).new_empty(1000).isnan().all()
    assert (torch.empty(1000, dtype=torch.int64) == torch.iinfo(torch.int64).max).all()
