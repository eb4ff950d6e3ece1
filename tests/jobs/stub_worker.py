"""A worker that keeps the contract of train/ without torch, and misbehaves on request.

STUB=crash:R raises on rank R, kill:R dies of SIGKILL, refuse finds the request wrong, deaf ignores
the request to stop. STUB_STEPS is the number of steps, each a tenth of a second.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path

RUN = Path(sys.argv[sys.argv.index("--run") + 1])
RANK = int(os.environ["RANK"])
BEHAVIOUR, _, WHO = os.environ.get("STUB", "").partition(":")
STEPS = int(os.environ.get("STUB_STEPS", "3"))
PLACE = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")

stopped_by = []
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2):
    signal.signal(number, lambda number, _: stopped_by.append(number))


def write_metrics(attempt, step, **values):
    if RANK == 0:
        line = {"epoch": 1, "iter": step, "step": step, "lr": 0.1, "attempt": attempt} | values
        with (RUN / "metrics.jsonl").open("a") as metrics:
            metrics.write(json.dumps(line) + "\n")


def main():
    ledger = RUN / "attempts.jsonl"
    attempt = json.loads(ledger.read_text().splitlines()[-1])["attempt"] if ledger.exists() else 1
    seen = {name: os.environ.get(name) for name in (*PLACE, "CUDA_VISIBLE_DEVICES")}
    print(json.dumps(seen | {"attempt": attempt, "pid": os.getpid(), "code": __file__}), flush=True)
    saved = RUN / "checkpoints" / "step"
    first = int(saved.read_text()) if saved.exists() else 0
    for step in range(first + 1, STEPS + 1):
        time.sleep(0.1)
        write_metrics(
            attempt, step, mode="train", loss=1 / step, steps=STEPS, images_per_second=100.0
        )
        if BEHAVIOUR == "refuse":
            print("error: the archive is damaged\ndownload it again", file=sys.stderr)
            return 2
        if BEHAVIOUR == "crash" and int(WHO) == RANK:
            raise RuntimeError("broken on purpose")
        if BEHAVIOUR == "kill" and int(WHO) == RANK:
            os.kill(os.getpid(), signal.SIGKILL)
        if stopped_by and BEHAVIOUR != "deaf":
            if RANK == 0:
                saved.parent.mkdir(exist_ok=True)
                saved.write_text(str(step))
            print(f"stopped by {signal.Signals(stopped_by[0]).name} after step {step}")
            return 75
    scores = {"accuracy_top-1": 90.5, "accuracy_top-5": 99.5}
    write_metrics(attempt, STEPS, mode="val", **scores)
    if RANK == 0:
        results = scores | {"best": scores | {"epoch": 1}, "attempts": attempt, "steps": STEPS}
        (RUN / "results.json").write_text(json.dumps(results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
