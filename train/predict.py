"""Name what is on images with a trained model.

    python -m train.predict --checkpoint FILE IMAGES_OR_FOLDER... [--output FILE.csv]

FILE is a run's checkpoint, an export of one, or another ResNet-50 with options that say what it
does not. Prints CSV: file, class, confidence (a probability, from 0 to 1). Exit codes: 0 done, 1
something could not be read or written, 2 the request was wrong, 130 interrupted.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import io
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from train.errors import RequestError
from train.files import whole_file
from train.photos import find_images
from train.process import leave, many_imports

EXAMPLES = """examples:
  python -m train.predict --checkpoint resnet50.safetensors photo.jpg
  python -m train.predict --checkpoint resnet50.safetensors photos/ --output photos.csv
"""


def make_parser() -> argparse.ArgumentParser:
    """The parser of the command's options."""
    parser = argparse.ArgumentParser(
        prog="python -m train.predict",
        description="Name what is on images with a trained model; CSV: file, class, confidence.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--checkpoint", type=Path, required=True, metavar="FILE")
    parser.add_argument("--output", type=Path, metavar="FILE", help="write the CSV there")
    parser.add_argument("sources", type=Path, nargs="+", metavar="IMAGES_OR_FOLDER")
    unsaid = parser.add_argument_group("for a file that does not say them itself")
    unsaid.add_argument(
        "--classes",
        type=_names,
        metavar="A,B,...",
        help="names of the classes, in the order of the model's outputs, as a row of CSV",
    )
    unsaid.add_argument(
        "--resolution", type=int, metavar="PIXELS", help="side that it was trained at"
    )
    for name, what in (("mean", "subtracted"), ("std", "divided by")):
        unsaid.add_argument(
            f"--{name}",
            type=_channels,
            metavar="R,G,B",
            help=f"{what}, in grey levels; CIFAR-10's if left out",
        )
    return parser


def _names(text: str) -> list[str]:
    try:
        [names] = csv.reader(io.StringIO(text, newline=""), strict=True)
    except (csv.Error, ValueError):
        raise argparse.ArgumentTypeError(f"expected names as a row of CSV, got {text!r}") from None
    return names


def _channels(text: str) -> list[float]:
    try:
        return [float(each) for each in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected three numbers, R,G,B, got {text!r}") from None


def main() -> int:
    """Print the predictions; the exit code says how that went."""
    args = make_parser().parse_args()
    given = {
        key: getattr(args, key)
        for key in ("classes", "resolution", "mean", "std")
        if getattr(args, key) is not None
    }
    try:
        return run(args.checkpoint, args.sources, given, args.output)
    except RequestError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        # The reader (`| head`) has what it wanted. Python would complain once more at its exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        print(
            f"error: {args.output or 'stdout'} cannot be written: {error.strerror}", file=sys.stderr
        )
        return 1
    except KeyboardInterrupt:
        return 130


def run(checkpoint: Path, sources: list[Path], given: dict[str, Any], output: Path | None) -> int:
    """Predict all images in `sources`; returns the exit code.

    Raises:
        RequestError: the checkpoint cannot be used, or there is no image.
        OSError: the CSV cannot be written.
    """
    for source in sources:
        try:
            source.stat()
        except (FileNotFoundError, NotADirectoryError):
            raise RequestError(f"there is no file or folder {source}") from None
        except OSError as error:
            raise RequestError(f"{source} cannot be read: {error.strerror}") from None
    if next(find_images(sources, lambda _path, _why: None), None) is None:
        raise RequestError(f"there is no image in {', '.join(map(str, sources))}")
    # Only now: importing torch takes seconds.
    with many_imports():
        from train.prediction import predict, read_model

    unread = 0

    def report(path: Path, why: str) -> None:
        nonlocal unread
        unread += 1
        print(f"{path}: {why}", file=sys.stderr)

    predictor = read_model(checkpoint, given)
    began, count = time.perf_counter(), 0
    with target(output) as file:
        file.write(line("file", "class", "confidence"))
        for each in predict(predictor, sources, report):
            count += 1
            file.write(line(each.file, each.label, f"{each.confidence:.6f}"))
        file.flush()
    seconds = time.perf_counter() - began
    words = f"{count:,} image{'' if count == 1 else 's'} in {seconds:.1f} s"
    print(words + (f"; {unread:,} could not be read" if unread else ""), file=sys.stderr)
    return 1 if unread else 0


def line(*values: object) -> bytes:
    """A line of CSV; a file's name that is no UTF-8 comes out as the bytes that it is."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(values)
    return text.getvalue().encode(errors="surrogateescape")


@contextlib.contextmanager
def target(output: Path | None) -> Iterator[BinaryIO]:
    """Where the CSV goes: a file that appears when it is complete, or stdout."""
    if output is None:
        yield sys.stdout.buffer
    elif output.exists() and (not output.is_file() or output.absolute().is_relative_to("/dev")):
        # A pipe or a device, or what /dev/stdout stands for: nothing takes their place.
        with output.open("ab") as file:
            yield file
    else:
        with whole_file(output.resolve()) as file:
            yield file


if __name__ == "__main__":
    # What is half written is removed then, too.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    leave(main())
