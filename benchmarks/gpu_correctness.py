"""The Triton kernels on a GPU against the reference in float64."""

import multiprocessing
import os
import time
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures import TimeoutError as PoolTimeout
from dataclasses import fields, replace
from functools import cache
from typing import Any

import torch
from tests.ops import cases as test_cases
from tests.ops.precision import rounding_budget
from torch import Tensor

from benchmarks.gpu_ops import STEPS, make_inputs, make_step

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
GATE = 3e-2  # of an output or gradient in bfloat16, relative to the largest
WITH_DROPOUT = {"float32": 2e-5, "bfloat16": 3e-2, "float16": 4e-3}
MAX_PROCESSES = 8


def check_timed_shapes() -> dict[str, Any]:
    """The steps that are timed, at 1,024 tokens: errors relative to the largest value; and equal bits."""
    errors, repeats = {}, {}
    for name in STEPS:
        inputs = make_inputs(1_024)
        expected = _differentiate(make_step(name, 1_024, "reference"), [x.detach().double() for x in inputs])
        actual = _differentiate(make_step(name, 1_024, "triton"), inputs)
        errors[name] = max(
            float((a.double() - e).abs().max() / e.abs().max()) for a, e in zip(actual, expected, strict=True)
        )
        long_inputs = make_inputs(65_536)
        step = make_step(name, 65_536, "triton")
        first, second = (_differentiate(step, long_inputs) for _ in range(2))
        repeats[name] = all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
        print(f"{name}: error {errors[name]:.1e}, the same bits twice: {repeats[name]}", flush=True)
    agrees = all(error < GATE for error in errors.values()) and all(repeats.values())
    return {"agrees": agrees, "errors": errors, "same_bits": repeats}


def _differentiate(step: Any, inputs: list[Tensor]) -> list[Tensor]:
    leaves = [x.detach().requires_grad_() for x in inputs[:3]]
    out = step(*leaves)
    return [out.detach(), *torch.autograd.grad(out, leaves, inputs[3])]


def check_cases(stop: float) -> dict[str, Any]:
    """The cases of the test suite, in processes, since each compiles kernels of its own.

    Args:
        stop: of `time.monotonic()`, when what has not been begun is left out.
    """
    wanted = [
        (index, dtype)
        for dtype, step in (("float32", 1), ("bfloat16", 1), ("float16", 3))
        for index in range(0, len(_cases()), step)
    ]
    wanted.sort()  # so that a run that is cut has seen all dtypes
    num_processes = max(1, min(MAX_PROCESSES, len(os.sched_getaffinity(0)) // 2))
    failures: list[str] = []
    num_done, worst = 0, dict.fromkeys(DTYPES, 0.0)
    with ProcessPoolExecutor(
        num_processes,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=torch.set_num_threads,
        initargs=(2,),
    ) as pool:
        futures: dict[Future[float], tuple[int, str]] = {
            pool.submit(error_of_case, index, dtype): (index, dtype) for index, dtype in wanted
        }
        try:
            for future in as_completed(futures, timeout=max(1.0, stop - time.monotonic())):
                index, dtype = futures[future]
                num_done += 1
                try:
                    worst[dtype] = max(worst[dtype], future.result())
                    failed = future.result() > 1
                    reason = f"{future.result():.2f} times what is allowed"
                except Exception as error:
                    failed, reason = True, f"{type(error).__name__}: {error}"[:1000]
                if failed:
                    failures.append(f"{_cases()[index]} in {dtype}: {reason}")
                    print(failures[-1], flush=True)
        except PoolTimeout:
            pool.shutdown(wait=False, cancel_futures=True)
    print(f"{num_done} of {len(wanted)} cases, {len(failures)} failures, worst {worst}", flush=True)
    return {
        "agrees": num_done > 0 and not failures,
        "cases": len(wanted),
        "cases_run": num_done,
        "failures": failures,
        "worst_of_allowed": worst,
    }


def error_of_case(index: int, dtype_name: str) -> float:
    """The largest error of a case as a fraction of what is allowed."""
    case, dtype = _cases()[index], DTYPES[dtype_name]
    quantised = test_cases.make_inputs(case, 3).to(dtype)
    promoted = quantised.to(torch.float64)
    truth = test_cases.attend_and_differentiate(case, promoted, "reference")
    tensors: dict[str, Any] = {f.name: getattr(quantised, f.name) for f in fields(quantised)}
    moved: dict[str, Any] = {name: None if x is None else x.cuda() for name, x in tensors.items()}
    on_device = replace(quantised, **moved)
    actual = test_cases.attend_and_differentiate(case, on_device, "triton")
    errors = {name: (actual[name].cpu().double() - truth[name]).abs() for name in truth}
    if case.dropout:
        sizes = {name: case.D**0.5 + float(truth[name].abs().max()) for name in truth}
        return max(float(errors[name].max()) / sizes[name] for name in truth) / WITH_DROPOUT[dtype_name]
    reference = test_cases.attend_and_differentiate(case, quantised, "reference")
    budget = rounding_budget(case, promoted, truth, dtype, rounds_weights=dtype != torch.float32)
    fractions = []
    for name in truth:
        allowed = (reference[name].double() - truth[name]).abs().max() + budget[name]
        fraction = errors[name] / allowed.clamp(min=torch.finfo(torch.float64).tiny)
        fractions.append(float(fraction.nan_to_num(nan=torch.inf).max()))
    return max(fractions)


@cache
def _cases() -> list[test_cases.Case]:
    return [replace(case, small_tiles=False) for case in test_cases.pairwise_cases(seed=0)]
