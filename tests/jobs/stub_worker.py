"""A worker that keeps the contract of train/ without torch, and misbehaves on request.

STUB=crash:R raises on rank R, kill:R dies of SIGKILL, refuse finds the request wrong, deaf ignores
the request to stop, unfit:R finds rank R's node unfit, slow takes ten seconds to save. STUB_STEPS
is the number of steps, each a tenth of a second; STUB_SAVE_EVERY saves every so many of them;
STUB_ONLY=K misbehaves in attempt K alone.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path

RUN = Path(sys.argv[sys.argv.index("--run") + 1])
RANK = int(os.environ["RANK"])
STEPS = int(os.environ.get("STUB_STEPS", "3"))
SAVE_EVERY = int(os.environ.get("STUB_SAVE_EVERY", "0"))
PLACE = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")

stopped_by = []
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2):
    signal.signal(number, lambda number, _: stopped_by.append(number))


def write_metrics(attempt, step, **values):
    if RANK == 0:
        line = {"epoch": 1, "iter": step, "step": step, "lr": 0.1, "attempt": attempt} | values
        with (RUN / "metrics.jsonl").open("a") as metrics:
            metrics.write(json.dumps(line) + "\n")


def save(step, seconds=0.1):
    if RANK == 0:
        folder = RUN / "checkpoints"
        folder.mkdir(exist_ok=True)
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        manifest = {"step": step, "sha256": "", "size": 0, "score": None}
        manifest |= {"seconds": seconds, "saved_at": now}
        draft = folder / "draft"
        draft.write_text(json.dumps(manifest))
        draft.rename(folder / f"step-{step:08d}.json")


def leave_together():
    """Nobody goes before rank 0 has saved, as in train/."""
    while RANK and not list((RUN / "checkpoints").glob("step-*.json")):
        time.sleep(0.05)


def end_together(attempt):
    """Nobody ends before all have begun, as in train/, where they wait for each other first."""

    def begun():
        logs = (RUN / f"attempt-{attempt:02d}").glob("rank-*.log")
        return sum(log.stat().st_size > 0 for log in logs)

    late = time.monotonic() + 20
    while 0 < begun() < int(os.environ["WORLD_SIZE"]) and time.monotonic() < late:
        time.sleep(0.05)


def main():
    ledger = RUN / "attempts.jsonl"
    attempt = json.loads(ledger.read_text().splitlines()[-1])["attempt"] if ledger.exists() else 1
    seen = {name: os.environ.get(name) for name in (*PLACE, "CUDA_VISIBLE_DEVICES")}
    print(json.dumps(seen | {"attempt": attempt, "pid": os.getpid(), "code": __file__}), flush=True)
    misbehaves = os.environ.get("STUB_ONLY", str(attempt)) == str(attempt)
    behaviour, _, who = os.environ.get("STUB", "").partition(":") if misbehaves else ("", "", "")
    if behaviour == "unfit":
        if int(who) == RANK:
            print("error: GPU 3 is missing", file=sys.stderr)
        return 76 if int(who) == RANK else 75
    saved = sorted((RUN / "checkpoints").glob("step-*.json"))
    first = int(saved[-1].stem[5:]) if saved else 0
    for step in range(first + 1, STEPS + 1):
        time.sleep(0.1)
        write_metrics(
            attempt, step, mode="train", loss=1 / step, steps=STEPS, images_per_second=100.0
        )
        if SAVE_EVERY and step % SAVE_EVERY == 0:
            save(step)
        if behaviour == "refuse":
            print("error: the archive is damaged\ndownload it again", file=sys.stderr)
            return 2
        if behaviour == "crash" and int(who) == RANK:
            raise RuntimeError("broken on purpose")
        if behaviour == "kill" and int(who) == RANK:
            os.kill(os.getpid(), signal.SIGKILL)
        if stopped_by and behaviour != "deaf":
            if behaviour == "slow":
                time.sleep(10)
            save(step)
            leave_together()
            print(f"stopped by {signal.Signals(stopped_by[0]).name} after step {step}")
            return 75
    end_together(attempt)
    scores = {"accuracy_top-1": 90.5, "accuracy_top-5": 99.5}
    write_metrics(attempt, STEPS, mode="val", **scores)
    if RANK == 0:
        results = scores | {"best": scores | {"epoch": 1}, "attempts": attempt, "steps": STEPS}
        (RUN / "results.json").write_text(json.dumps(results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
