"""`python -m benchmarks [CASE ...]`: `reformer bench`, with the results in `benchmarks/results/`."""

import sys

from reformer.cli import main

if __name__ == "__main__":
    sys.exit(main(["bench", "--out", "benchmarks/results", *sys.argv[1:]]))
