"""Stands for ``apptainer`` (or ``singularity``): looks at what it was asked for, and runs the command as an image would.

It is strict where the real one is lenient. An option that it does not know, a bind that is not there, a folder of the trial
that is not bound: each ends it with a code of its own. What it was asked for is a line of ``calls.jsonl`` beside it; what
the image holds is ``image/bin`` beside it.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

HERE = Path(__file__).parent
USAGE, NO_BIND, NO_IMAGE, UNSEEN = 64, 65, 66, 67


def fail(code: int, words: str) -> None:
    """End as a container that cannot be started does."""
    sys.stderr.write(f"FATAL: {words}\n")
    sys.exit(code)


def parse(words: list[str]) -> tuple[bool, list[str], str, list[str]]:
    """Take ``exec [--nv] [--bind SOURCE[:TARGET[:OPTIONS]]]... IMAGE COMMAND...`` apart: nv, binds, image, command."""
    if words[:1] != ["exec"]:
        fail(USAGE, f"unknown command {words[:1]}")
    nv, binds, rest = False, [], words[1:]
    while rest and rest[0].startswith("-"):
        option = rest.pop(0)
        if option == "--nv":
            nv = True
        elif option == "--bind" and rest:
            binds.append(rest.pop(0))
        else:
            fail(USAGE, f"unknown option {option}")
    if len(rest) < 2:
        fail(USAGE, "no command")
    return nv, binds, rest[0], rest[1:]


def main() -> None:
    """Check, write down, and take the command's place."""
    nv, binds, image, command = parse(sys.argv[1:])
    targets = []
    for bind in binds:
        source, *further = bind.split(":")
        if not Path(source).exists():
            fail(NO_BIND, f"mount source {source} doesn't exist")
        targets.append(Path(further[0] if further else source))
    if not Path(image).is_file():
        fail(NO_IMAGE, f"could not open image {image}")

    def seen(path: str) -> bool:
        return any(target == Path(path) or target in Path(path).parents for target in targets)

    ours = {name: value for name, value in os.environ.items() if name.startswith("SURVEY_")}
    paths = [value for value in ours.values() if value.startswith("/")] + [os.getcwd()]
    paths += os.environ.get("PYTHONPATH", "").split(os.pathsep)[-1:]  # where orchestrator.trial travels
    for path in paths:
        if not seen(path):
            fail(UNSEEN, f"{path} is not in the container")
    call = {"nv": nv, "binds": binds, "image": image, "command": command, "cwd": os.getcwd(), "survey": sorted(ours)}
    call |= {"name": Path(sys.argv[0]).name, "threads": os.environ.get("OMP_NUM_THREADS")}
    with (HERE / "calls.jsonl").open("a") as file:
        file.write(json.dumps(call) + "\n")
    # A program is the image's, whatever the host has on its PATH.
    environment = {**os.environ, "PATH": f"{HERE}/image/bin:/usr/bin:/bin", "APPTAINER_CONTAINER": image}
    os.execvpe(command[0], command, environment)


if __name__ == "__main__":
    main()
