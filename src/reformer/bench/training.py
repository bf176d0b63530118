"""Whole training steps: forward, backward and AdamW, next to transformers' Reformer and GPT-2.

6 layers (local, lsh) x 3, d = 256, feed-forward 512, 2 heads of 64, 1 hash round, 256 symbols. "same" is the
model of transformers loaded into ours, with its window and float32 streams; "chunk" has our int32 streams
too, and "bucket" our window.
"""

import tempfile
import time
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from reformer.bench.case import Case, Contender, Run, Unavailable

GATE_LENGTH = 2_048
SHORT, SHORT_BATCH = 512, 8
SHAPE: dict[str, Any] = {
    "hidden_size": 256,
    "feed_forward_size": 512,
    "num_attention_heads": 2,
    "attention_head_size": 64,
    "attn_layers": ["local", "lsh"] * 3,
    "vocab_size": 256,
    "num_hashes": 1,
    "is_decoder": True,
    "axial_pos_embds_dim": (64, 192),
    "hidden_dropout_prob": 0.0,
    "local_attention_probs_dropout_prob": 0.0,
    "hash_seed": 0,
}
BFLOAT16 = " bfloat16"
UNUSED_BY_TRANSFORMERS = "lm_head.bias"  # loaded by transformers 5.23, and then not added


def make_model(name: str, length: int) -> Any:
    """A model in training mode; those of transformers' shape have the same weights."""
    import transformers

    from reformer.models.configuration import ReformerConfig
    from reformer.models.modeling import ReformerForCausalLM

    torch.manual_seed(0)
    shape = SHAPE | {"axial_pos_shape": (length // 128, 128), "max_position_embeddings": length}
    kind = name.removesuffix(BFLOAT16)
    if kind == "gpt2":
        config = transformers.GPT2Config(
            n_embd=256, n_inner=512, n_head=2, n_layer=6, vocab_size=256, n_positions=length,
            resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, bos_token_id=0, eos_token_id=0,
        )  # fmt: skip
        return transformers.GPT2LMHeadModel(config).train()
    if kind == "bucket":
        return ReformerForCausalLM(ReformerConfig(**shape)).train()
    theirs = transformers.ReformerModelWithLMHead(
        transformers.ReformerConfig(**shape, num_buckets=num_buckets(length))
    )
    if kind == "transformers":
        return theirs.train()
    options: dict[str, Any] = {"as_transformers": False, "residual": "int32"} if kind == "chunk" else {}
    with tempfile.TemporaryDirectory() as folder:
        theirs.save_pretrained(folder)
        return ReformerForCausalLM.from_pretrained(folder, **options).train()


def num_buckets(length: int) -> int | list[int]:
    """2T / C buckets, in two factors from 256 on, as transformers chooses them."""
    power = (2 * length // 64).bit_length() - 1
    return 1 << power if power < 8 else [1 << power // 2, 1 << power - power // 2]


def random_tokens(batch: int, length: int) -> Tensor:
    """Symbols `[batch, length]`, the same at each call."""
    return torch.randint(256, (batch, length), generator=torch.Generator().manual_seed(1))


def _gradients(model: Any, length: int, *, bfloat16: bool = False) -> dict[str, Tensor]:
    tokens = random_tokens(1, length)
    with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
        loss = model(input_ids=tokens, labels=tokens).loss
    loss.backward()
    found = {name: p.grad.double() for name, p in model.named_parameters() if p.grad is not None}
    return found | {"loss": loss.detach().double()}


def error_between(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> float:
    """The larger of two relative errors: of the loss, and of the gradient of all parameters as one vector.

    A parameter without a gradient has one of zeros.
    """
    difference, size = 0.0, 0.0
    for name in (found.keys() | wanted.keys()) - {"loss"}:
        zeros = torch.zeros(())
        one, other = found.get(name, zeros), wanted.get(name, zeros)
        difference += float((one - other).square().sum())
        size += float(other.square().sum())
    loss = float((found["loss"] - wanted["loss"]).abs() / wanted["loss"].abs())
    error = max(loss, (difference / size) ** 0.5)
    return error if error == error else float("inf")


def compare(name: str, length: int = GATE_LENGTH) -> float:
    """Error of a model in one step, with the same weights and rotations as what it is held to.

    "same", "chunk": transformers' model. "transformers": ours with its weights. What runs in bfloat16: itself
    in float32. Others: themselves in float64.
    """
    bfloat16 = name.endswith(BFLOAT16)
    if bfloat16 and not torch.cpu._is_avx512_bf16_supported():
        raise Unavailable("this processor has no instructions for bfloat16")
    model = make_model(name, length)
    if name != "transformers":  # which takes the rotations of its hash_seed in training too
        model.eval()
    found = _gradients(model, length, bfloat16=bfloat16)
    if bfloat16:
        other = make_model(name.removesuffix(BFLOAT16), length).eval()
    elif name == "transformers":
        other = make_model("same", length).eval()
    elif name in ("same", "chunk"):
        other = make_model("transformers", length)
    else:
        other = make_model(name, length).eval().double()
    wanted = _gradients(other, length)
    if name in ("same", "chunk", "transformers"):
        for gradients in (found, wanted):
            gradients.pop(UNUSED_BY_TRANSFORMERS, None)
    return error_between(found, wanted)


def _contender(name: str, tolerance: float, batch: int, note: str | None = None) -> Contender:
    def prepare(length: int) -> Run:
        model = make_model(name, length)
        tokens = random_tokens(batch, length)
        optimizer = torch.optim.AdamW(model.parameters())

        def run() -> dict[str, float]:
            start = time.perf_counter()
            with torch.autocast("cpu", torch.bfloat16, enabled=name.endswith(BFLOAT16)):
                loss = model(input_ids=tokens, labels=tokens).loss
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            return {"step_seconds": time.perf_counter() - start}

        return run

    return Contender(prepare, lambda: compare(name), tolerance, note=note)


def _contenders(names: tuple[str, ...], batch: int = 1) -> dict[str, Contender]:
    return {name: _contender(name, TOLERANCES[name], batch, NOTES.get(name)) for name in names}


TOLERANCES = {
    "same": 1e-3,
    "same bfloat16": 1e-1,
    "chunk": 1e-3,
    "bucket": 1e-3,
    "bucket bfloat16": 1e-1,
    "transformers": 1e-3,
    "gpt2": 1e-4,
}
NOTES = {
    "same": "transformers' weights and configuration in ours: chunk window, float32 streams",
    "same bfloat16": "the same, under bfloat16 autocast",
    "chunk": "the same weights, int32 streams",
    "bucket": "our window and int32 streams; another model of the same size",
    "bucket bfloat16": "the same, under bfloat16 autocast",
    "gpt2": "full attention; no reversible layers",
}
OURS = ("same", "same bfloat16", "chunk", "bucket", "bucket bfloat16")


def make_case() -> Case:
    """Long sequences, next to transformers' Reformer."""
    return Case(
        title="a training step",
        contenders=_contenders((*OURS, "transformers")),
        baselines=("transformers",),
        lengths=(16_384, 65_536, 262_144),
        quick_lengths=(16_384,),
        warm_up_length=4_096,
        settings={"batch": 1, "model": SHAPE},
    )


def make_million_case() -> Case:
    """What only ours can do in this memory."""
    return Case(
        title="a training step on 1,048,576 tokens",
        contenders=_contenders(("same", "same bfloat16", "bucket", "bucket bfloat16")),
        baselines=(),
        lengths=(1 << 20,),
        quick_lengths=(),
        warm_up_length=4_096,
        settings={"batch": 1, "model": SHAPE},
    )


def make_short_case() -> Case:
    """Short sequences, next to transformers' Reformer and GPT-2."""
    return Case(
        title=f"a training step on short sequences, {SHORT_BATCH} rows",
        contenders=_contenders((*OURS, "transformers", "gpt2"), SHORT_BATCH),
        baselines=("transformers", "gpt2"),
        lengths=(SHORT,),
        quick_lengths=(SHORT,),
        warm_up_length=SHORT,
        settings={"batch": SHORT_BATCH, "model": SHAPE},
        batch=SHORT_BATCH,
    )
