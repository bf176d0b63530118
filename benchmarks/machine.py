"""What a benchmark ran on: see `reformer.bench.machine`."""

from reformer.bench.machine import describe_machine

__all__ = ["describe_machine"]
