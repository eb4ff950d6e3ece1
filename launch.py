"""Start, watch and end training runs: `python launch.py --config finetune.yaml`."""

from __future__ import annotations

import sys

from jobs.cli import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
