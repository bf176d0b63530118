"""Timings and memory side by side with what one would use instead: `reformer bench`.

`registry.py` lists the cases. Each contender runs in a process of its own (`worker.py`), which first shows
that its results are right; `turns.py` lets them take turns and writes what was measured.
"""
