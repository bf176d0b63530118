import io

from rich.console import Console

from reformer.training.progress import ProgressDisplay


def lines_of(console: Console) -> list[str]:
    file = console.file
    assert isinstance(file, io.StringIO)
    return file.getvalue().splitlines()


def step(number: int) -> dict[str, float]:
    return {"step": number, "loss": 1.25, "bits_per_token": 1.8034, "length": 4096, "tokens": 4096 * number,
            "tokens_per_second": 1e5, "peak_memory_bytes": 3 * 2**29}  # fmt: skip


def test_without_a_terminal_a_few_plain_lines() -> None:
    console = Console(file=io.StringIO())
    display = ProgressDisplay(console, num_steps=1000, num_tokens=4_096_000, tokens_done=0)
    for number in range(1, 1001):
        display.record_step(step(number))
    display.record_evaluation({"step": 1000, "eval": "mouse", "bits_per_token": 1.9, "bits_per_base": 1.95})
    display.close()
    lines = lines_of(console)
    assert len(lines) == 3  # the first step, the last one, the evaluation
    assert lines[0].startswith("step 1/1,000  length 4,096  ETA ")
    assert "  loss 1.2500  1.8034 bits/token  " in lines[0]
    assert lines[0].endswith(" tokens/s  peak 1.50 GiB")
    assert lines[1].startswith("step 1,000/1,000  length 4,096  ETA 0:00:00  ")
    assert lines[2] == "step 1,000/1,000  mouse: 1.9000 bits/token, 1.9500 bits/base"


def test_on_a_terminal_a_bar() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=80)
    display = ProgressDisplay(console, num_steps=10, num_tokens=40_960, tokens_done=0)
    for number in range(1, 11):
        display.record_step(step(number))
    display.close()
    text = "".join(lines_of(console))
    assert "\x1b[" in text
    assert "step 10/10  length 4,096  ETA 0:00:00 " in text
    assert "loss 1.2500  1.8034 bits/token  " in text
    assert " tokens/s  peak 1.50 GiB" in text
