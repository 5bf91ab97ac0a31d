"""The trial's side of the agreement: parameters in, progress and results out.

::

    from orchestrator import trial

    p = trial.params()
    for epoch in range(p["epochs"]):
        loss = train(p["lr"])
        trial.report(epoch, loss)
        if trial.should_stop():
            break
    trial.finish(loss=loss)

A program that takes longer than a job may keeps its state, and goes on from it in another job::

    found = trial.latest_checkpoint()
    step = load(found[1]) if found else 0
    ...
    with trial.new_checkpoint(step) as folder:
        save(folder)
    if trial.stop_reason() == "walltime":
        trial.requeue()

Outside a survey the same program runs by hand: `report` and `finish` print. A program that is a
plain function needs not even this: ``python -m orchestrator.trial call module:function`` calls it
with the parameters and reports what it returns.

Python 3.6, the standard library, no other file of ours: it is staged beside the agent.
"""

import contextlib
import json
import os
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable, Dict, List, Mapping, NoReturn, Optional, Sequence, SupportsFloat, Tuple

__all__ = [
    "artifacts_dir",
    "attempt",
    "checkpoint_dir",
    "deadline",
    "finish",
    "latest_checkpoint",
    "new_checkpoint",
    "params",
    "report",
    "requeue",
    "run",
    "runs",
    "seed",
    "should_stop",
    "stop_reason",
]

_SEEN = ".seen"  # of the file that asks for an early end: beside it, once the program has looked and found it
_REQUEUE = 85  # the exit code that asks for another attempt


def params() -> "Dict[str, Any]":
    """Read the trial's parameters (the file ``SURVEY_PARAMS`` names); ``{}`` where there is none."""
    path = os.environ.get("SURVEY_PARAMS")
    if not path:
        return {}
    with open(path, encoding="utf-8") as stream:
        data = json.load(stream)
    if not isinstance(data, dict):
        raise TypeError("{} holds no parameters by name".format(path))
    return data


def report(step: int, value: "SupportsFloat") -> None:
    """Report an intermediate value; a step that is reported again replaces the earlier value.

    Raises
    ------
    TypeError
        If ``value`` is no number, or ``step`` no whole one.
    """
    index = getattr(step, "__index__", None)
    if index is None or isinstance(step, bool):
        raise TypeError("step must be a whole number, not {!r}".format(step))
    number = _number("value", value)
    path = os.environ.get("SURVEY_PROGRESS")
    if not path:
        print("{} {:g}".format(index(), number), flush=True)
        return
    line = json.dumps({"step": index(), "value": number, "time": time.time()}) + "\n"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        os.write(descriptor, line.encode())  # one write: a reader never sees half a line but at the end
    finally:
        os.close(descriptor)


def should_stop() -> bool:
    """Tell whether the trial was asked to end early (by the pruner, or because its time is nearly over).

    Cheap enough for every step. A program that obeys saves its state, calls `finish` and ends.
    """
    return _stop_order() is not None


def stop_reason() -> str:
    """Why the trial is to end early: ``"walltime"``, or the driver's words (``"pruned"``); "" where it is not."""
    order = _stop_order()
    return "" if order is None else order.split("\n")[0].strip() or "asked to stop"


def _stop_order() -> "Optional[str]":
    path = os.environ.get("SURVEY_STOP")
    if not path:
        return None
    try:
        with open(path, encoding="utf-8", errors="replace") as stream:  # network file systems refresh on open
            order = stream.read(4096)
    except OSError:
        return None
    with contextlib.suppress(
        OSError
    ):  # by this it is known, in any process of the program, that the result is not whole
        os.close(os.open(path + _SEEN, os.O_WRONLY | os.O_CREAT, 0o600))
    return order


def requeue() -> "NoReturn":
    """End the program and ask for another attempt, which finds this one's checkpoints (exit code 85)."""
    sys.exit(_REQUEUE)


def checkpoint_dir() -> str:
    """Folder for the program's state, shared by all attempts of the trial (made if need be)."""
    return _folder("SURVEY_CHECKPOINT", "checkpoint")


def artifacts_dir() -> str:
    """Folder for files to be kept of the best trials (made if need be)."""
    return _folder("SURVEY_ARTIFACTS", "artifacts")


def seed() -> "Optional[int]":
    """Seed of this run, or None where the study gives none."""
    value = os.environ.get("SURVEY_SEED")
    return int(value) if value else None


def run() -> int:
    """Tell which run of its trial this is, from 1 to `runs`: the fold of a cross-validation, say."""
    return int(os.environ.get("SURVEY_RUN") or 1)


def runs() -> int:
    """Tell how many runs the trial has (``repeats`` of the study)."""
    return int(os.environ.get("SURVEY_RUNS") or 1)


def attempt() -> int:
    """Tell which attempt this is, from 1; a later one may find its predecessor's state in `checkpoint_dir`."""
    return int(os.environ.get("SURVEY_ATTEMPT") or 1)


def deadline() -> "Optional[float]":
    """Time (seconds since the epoch) at which the program is ended, or None where nothing limits it."""
    value = os.environ.get("SURVEY_DEADLINE")
    return float(value) if value else None


def finish(
    metrics: "Optional[Mapping[str, SupportsFloat]]" = None,
    info: "Optional[Mapping[str, Any]]" = None,
    **more_metrics: "SupportsFloat",
) -> None:
    """Write the trial's result, whole or not at all; called again, the last result counts.

    Parameters
    ----------
    metrics, **more_metrics :
        Numbers by name (anything with ``__float__``: NumPy's too). A value that is not finite is
        written as it is, so that the driver can say what was wrong.
    info : mapping, optional
        Whatever else is worth keeping, as JSON.

    Raises
    ------
    TypeError
        If a metric is no number, or something in ``info`` cannot be written as JSON.
    """
    given = dict(metrics or {}, **more_metrics)
    numbers = {str(name): _number(name, value) for name, value in given.items()}
    path = os.environ.get("SURVEY_RESULT")
    if not path:
        for name, number in numbers.items():
            print("{} {:g}".format(name, number), flush=True)
        return
    data: "Dict[str, Any]" = {"metrics": numbers, "info": dict(info or {})}
    if os.environ.get("SURVEY_STOP"):
        data["stopped"] = os.path.exists(os.environ["SURVEY_STOP"] + _SEEN)
    if os.environ.get("SURVEY_TAG"):
        data["tag"] = os.environ["SURVEY_TAG"]
    _write(path, (json.dumps(data, default=_plain) + "\n").encode())


def _number(name: object, value: "Any") -> float:
    if isinstance(value, (str, bytes)) or not hasattr(value, "__float__"):
        raise TypeError("{} must be a number, not {!r}".format(name, value))
    return float(value)


def _plain(value: "Any") -> "Any":
    """Turn NumPy's arrays and scalars, and paths, into what JSON has."""
    if hasattr(value, "tolist"):
        return value.tolist()
    if hasattr(value, "__fspath__"):
        return os.fspath(value)
    raise TypeError("info cannot hold {!r}: it is no JSON".format(value))


def _folder(variable: str, default: str) -> str:
    path = os.environ.get(variable) or os.path.abspath(default)
    os.makedirs(path, exist_ok=True)
    return path


def _write(path: str, content: bytes) -> None:
    folder, name = os.path.split(os.path.abspath(path))
    temporary = os.path.join(folder, ".{}.{}".format(name, os.urandom(6).hex()))
    try:
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        os.rename(temporary, path)
    except OSError:
        if os.path.lexists(temporary):
            os.unlink(temporary)
        raise
    _sync_folder(folder)


# --- checkpoints -----------------------------------------------------------------------------------------------

_STEP = "step-{:010d}.{}"  # a step that is saved again gets the next number: nothing whole is ever replaced


class new_checkpoint:  # noqa: N801  read as a verb: with new_checkpoint(7) as folder
    """Context manager: an empty folder that becomes the latest checkpoint, whole or not at all.

    The program writes what it likes into the folder. At the end of the block its files are
    brought to disk, it is renamed, and older checkpoints are removed. A block that fails, and a
    program that is killed in it, change nothing. Of a program of several processes one calls this.

    Parameters
    ----------
    step : int
        How far the program is (an epoch): the latest checkpoint is that of the largest step.
    keep : int
        How many of the latest checkpoints stay.
    folder : str, optional
        Where checkpoints lie; `checkpoint_dir` unless it is given.
    """

    def __init__(self, step: int, keep: int = 2, folder: "Optional[str]" = None) -> None:
        index = getattr(step, "__index__", None)
        if index is None or isinstance(step, bool) or index() < 0:
            raise TypeError("step must be a whole number, zero or more, not {!r}".format(step))
        if keep < 1:
            raise ValueError("keep must be at least 1, not {!r}".format(keep))
        self._step = index()
        self._keep = keep
        self._folder = folder
        self._temporary = ""

    def __enter__(self) -> str:
        self._folder = self._folder or checkpoint_dir()
        os.makedirs(self._folder, exist_ok=True)
        _sweep(self._folder)
        self._temporary = os.path.join(self._folder, ".attempt-{}-{}".format(attempt(), os.urandom(6).hex()))
        os.mkdir(self._temporary, 0o700)
        return self._temporary

    def __exit__(self, kind: object, _error: object, _trace: object) -> None:
        if kind is not None:
            _remove(self._temporary)
            return
        assert self._folder is not None
        try:
            _sync(self._temporary)
            same = [name for step, name in _checkpoints(self._folder) if step == self._step]
            number = max([int(name.rpartition(".")[2]) for name in same] + [0]) + 1
            os.rename(self._temporary, os.path.join(self._folder, _STEP.format(self._step, number)))
            _sync_folder(self._folder)
        except OSError:
            _remove(self._temporary)
            raise
        for _, name in _checkpoints(self._folder)[: -self._keep]:
            # First out of sight: a checkpoint that is half removed must not be found.
            hidden = os.path.join(self._folder, ".removed-" + name)
            try:
                os.rename(os.path.join(self._folder, name), hidden)
            except OSError:
                continue  # it stays, and is taken the next time
            _remove(hidden)


def latest_checkpoint(folder: "Optional[str]" = None) -> "Optional[Tuple[int, str]]":
    """Step and folder of the latest checkpoint of this trial, be it another attempt's; None where there is none."""
    place = folder or os.environ.get("SURVEY_CHECKPOINT") or os.path.abspath("checkpoint")
    found = _checkpoints(place)
    return (found[-1][0], os.path.join(place, found[-1][1])) if found else None


def _checkpoints(folder: str) -> "List[Tuple[int, str]]":
    """Step and name of each whole checkpoint, the latest last."""
    found = []
    try:
        names = os.listdir(folder)
    except OSError:
        return []
    for name in names:
        head, _, number = name.rpartition(".")
        if head.startswith("step-") and head[5:].isdigit() and number.isdigit():
            found.append((int(head[5:]), int(number), name))
    return [(step, name) for step, _, name in sorted(found)]


def _sweep(folder: str) -> None:
    """Remove what killed attempts have left half written."""
    for name in os.listdir(folder):
        parts = name.split("-")
        ours = parts[0] == ".attempt" and len(parts) == 3 and parts[1].isdigit() and int(parts[1]) < attempt()
        if ours or name.startswith(".removed-step-"):
            _remove(os.path.join(folder, name))


def _remove(folder: str) -> None:
    import shutil

    shutil.rmtree(folder, ignore_errors=True)


def _sync(folder: str) -> None:
    for place, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(place, name)
            if os.path.isfile(path) and not os.path.islink(path):
                descriptor = os.open(path, os.O_RDONLY)
                try:
                    os.fsync(descriptor)
                finally:
                    os.close(descriptor)
        _sync_folder(place)


def _sync_folder(folder: str) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


# --- python -m orchestrator.trial call module:function ----------------------------------------------------------


def _fail(message: str) -> "NoReturn":
    print("trial: {}".format(message), file=sys.stderr)
    sys.exit(2)


def _function(target: str) -> "Callable[..., Any]":
    import importlib

    module_name, _, name = target.partition(":")
    if not module_name or not name:
        _fail("expected module:function, not {!r}".format(target))
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        # Only the module itself: what is missing inside it deserves its own traceback.
        missing = getattr(error, "name", None) or ""
        if not (module_name == missing or module_name.startswith(missing + ".")) or not missing:
            raise
        _fail("there is no module {!r} (looked in {})".format(missing, os.pathsep.join(sys.path)))
    found: "Any" = module
    for part in name.split("."):
        found = getattr(found, part, None)
    if not callable(found):
        import difflib

        near = difflib.get_close_matches(name, [key for key in vars(module) if callable(getattr(module, key))], 1)
        hint = "; did you mean {!r}?".format(near[0]) if near else ""
        _fail("{} has no function {!r}{}".format(module_name, name, hint))
    function: "Callable[..., Any]" = found
    return function


def _sort(returned: "Any") -> "Tuple[Dict[str, float], Dict[str, Any]]":
    """Tell metrics from info in what a function returned."""
    if not isinstance(returned, dict):
        return {"value": _number("what the function returns", returned)}, {}
    metrics, info = {}, {}
    for name, value in returned.items():
        try:
            if isinstance(value, bool):
                raise TypeError("a truth value is no measurement")
            metrics[name] = _number(name, value)
        except (TypeError, ValueError):
            info[name] = value
    return metrics, info


def _call(target: str) -> None:
    import inspect

    # The folder of this file must not offer its modules (trial, agent) to the program's imports.
    here = os.path.dirname(os.path.abspath(__file__))
    sys.path[:] = [os.getcwd()] + [entry for entry in sys.path if os.path.abspath(entry) not in (here, os.getcwd())]
    function = _function(target)
    arguments = params()
    try:
        signature = inspect.signature(function)
    except ValueError:
        signature = None  # some built-in functions have none
    if signature is not None:
        try:
            signature.bind(**arguments)
        except TypeError as error:
            given = ", ".join(sorted(arguments)) or "none"
            _fail("{}{} does not take the trial's parameters ({}): {}".format(target, signature, given, error))
    returned = function(**arguments)
    result = os.environ.get("SURVEY_RESULT")
    if returned is None and (not result or os.path.exists(result)):
        return  # it has called finish itself
    if returned is None:
        _fail("{} returned nothing: let it return a number or a dict, or call trial.finish".format(target))
    metrics, info = _sort(returned)
    finish(metrics, info)


def _main(arguments: "Sequence[str]") -> None:
    if len(arguments) != 2 or arguments[0] != "call":
        _fail("usage: python -m orchestrator.trial call module:function")
    _call(arguments[1])


if __name__ == "__main__":
    _main(sys.argv[1:])
