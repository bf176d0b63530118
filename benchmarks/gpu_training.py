"""Training steps of whole models on a GPU, in bfloat16 autocast."""

import gc
import time
from typing import Any

import torch

LENGTHS = (4_096, 16_384, 65_536, 262_144)
PEERS = ("reformer", "reformer chunk", "transformers")
NUM_STEPS = 3  # after the first, which compiles
SMALL: dict[str, Any] = {
    "hidden_size": 256,
    "feed_forward_size": 512,
    "num_attention_heads": 2,
    "attention_head_size": 64,
    "attn_layers": ["local", "lsh"] * 3,
    "vocab_size": 256,
    "num_hashes": 1,
}
LARGE: dict[str, Any] = {
    "hidden_size": 1024,
    "feed_forward_size": 4096,
    "num_attention_heads": 16,
    "attention_head_size": 64,
    "attn_layers": ["local", "lsh"] * 6,
    "vocab_size": 256,
    "num_hashes": 1,
}
LARGE_TOKENS = 1 << 20


def training_steps(stop: float, *, print_ratios: bool) -> dict[str, Any]:
    """Seconds and peak memory of steps of one configuration: ours, and transformers'.

    Args:
        stop: of `time.monotonic()`, when no other length is begun.
        print_ratios: whether the kernels agreed with the reference.
    """
    results: dict[str, Any] = {"config": SMALL, "lengths": {}}
    for length in LENGTHS:
        if time.monotonic() > stop:
            results["cut"] = f"not begun: {length} tokens and more"
            break
        of_length: dict[str, Any] = {}
        for peer in PEERS:
            try:
                of_length[peer] = measure(peer, SMALL, length, NUM_STEPS)
            except torch.cuda.OutOfMemoryError:
                of_length[peer] = {"error": "out of memory"}
            except Exception as error:  # a peer's error is its own affair
                of_length[peer] = {"error": f"{type(error).__name__}: {error}"[:500]}
            _forget()
            line = f"{length:9,} tokens  {peer:15} {_in_words(of_length[peer])}"
            both_ran = (
                peer == "transformers" and "seconds" in of_length[peer] and "seconds" in of_length[PEERS[0]]
            )
            if print_ratios and both_ran:
                ratio = min(of_length[peer]["seconds"]) / min(of_length[PEERS[0]]["seconds"])
                line += f"  ({ratio:.1f} times the time of ours)"
            print(line, flush=True)
        results["lengths"][str(length)] = of_length
    return results


def large_step(stop: float) -> dict[str, Any]:
    """12 layers, d = 1024, 16 heads, 1,048,576 tokens: the second step, since the first compiles."""
    if time.monotonic() > stop:
        return {"cut": "not begun"}
    result = measure("reformer", LARGE, LARGE_TOKENS, 1)
    print(f"{LARGE_TOKENS:9,} tokens  {_in_words(result)}", flush=True)
    return {"config": LARGE, **result}


def measure(peer: str, config: dict[str, Any], length: int, num_steps: int) -> dict[str, Any]:
    """Forward, backward and AdamW, on random tokens."""
    torch.manual_seed(0)
    model = make_model(peer, config, length).cuda().train()
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    tokens = torch.randint(3, config["vocab_size"], (1, length), device="cuda")
    start = time.perf_counter()
    float(_step(model, optimizer, tokens))
    first_seconds = time.perf_counter() - start
    torch.cuda.reset_peak_memory_stats()
    seconds, losses = [], []
    for _ in range(num_steps):
        torch.cuda.synchronize()
        start = time.perf_counter()
        losses.append(_step(model, optimizer, tokens))
        torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    return {
        "parameters": sum(p.numel() for p in model.parameters()),
        "first_seconds": first_seconds,
        "seconds": seconds,
        "tokens_per_second": length / min(seconds),
        "peak_bytes": torch.cuda.max_memory_allocated(),
        "losses": [float(loss) for loss in losses],
    }


def make_model(peer: str, config: dict[str, Any], length: int) -> Any:
    """A causal language model; `peer` is one of PEERS."""
    rows = 1 << (length.bit_length() // 2)
    hidden = config["hidden_size"]
    values = config | {
        "is_decoder": True,
        "axial_pos_shape": (length // rows, rows),
        "axial_pos_embds_dim": (hidden // 4, hidden - hidden // 4),
        "max_position_embeddings": length,
        "hidden_dropout_prob": 0.0,
        "local_attention_probs_dropout_prob": 0.0,
    }
    if peer == "transformers":
        import transformers

        power = (2 * length // 64).bit_length() - 1
        num_buckets: Any = 1 << power if power < 8 else [1 << power // 2, 1 << power - power // 2]
        return transformers.ReformerModelWithLMHead(
            transformers.ReformerConfig(
                **values, num_buckets=num_buckets, lsh_attention_probs_dropout_prob=0.0
            )
        )
    from reformer import ReformerConfig, ReformerForCausalLM

    return ReformerForCausalLM(ReformerConfig(**values, lsh_window="chunk" if "chunk" in peer else "bucket"))


def _step(model: Any, optimizer: torch.optim.Optimizer, tokens: torch.Tensor) -> torch.Tensor:
    with torch.autocast("cuda", dtype=torch.bfloat16):
        loss = model(input_ids=tokens, labels=tokens).loss
    loss.backward()
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return loss.detach()


def _forget() -> None:
    gc.collect()
    torch.cuda.empty_cache()


def _in_words(result: dict[str, Any]) -> str:
    if "error" in result:
        return result["error"]
    return f"{min(result['seconds']):8.3f} s  peak {result['peak_bytes'] / 1e9:6.2f} GB"
