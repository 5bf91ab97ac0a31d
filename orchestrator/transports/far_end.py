"""What runs on the site's side of a connection: one request from stdin, one reply to stdout, and it is gone.

Its source travels with every request (`orchestrator.transports.framing`), so that nothing has to be
installed or kept up to date there, and another login node behind the same name makes no difference.
Nothing is done before the whole request is there and its hash is right: a connection that is cut in
the middle of one has done nothing.

Python 3.6, the standard library, no other file of ours; the agent's source comes along where it is
needed. Paths are handled as bytes: under ``LC_ALL=C`` Python 3.6 cannot encode others.
"""

import contextlib
import errno
import hashlib
import json
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import IO, Any, Dict, List, Mapping, Sequence, Tuple

    Reply = Tuple[Dict[str, Any], bytes]

TORN = 65  # EX_DATAERR of sysexits.h: the request did not arrive whole
LAST_WORDS = 2.0  # seconds that a killed command's output may still take


def _path(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _words(content: bytes) -> str:
    return content.decode("utf-8", "replace")


# --- requests --------------------------------------------------------------------------------------------------


def hello(_order: "Mapping[str, Any]", _body: bytes) -> "Reply":
    """Tell who and where we are."""
    import pwd
    import time

    account = pwd.getpwuid(os.getuid())
    version = ".".join(str(number) for number in sys.version_info[:3])
    host = os.uname().nodename
    return (
        {"host": host, "user": account.pw_name, "home": account.pw_dir, "python": version, "now": time.time()},
        b"",
    )


def run(order: "Mapping[str, Any]", body: bytes) -> "Reply":
    """Write the files that come with the order, then run its command in a process group of its own."""
    import signal
    import subprocess

    end = _put(order.get("files") or [], body)
    argv = [_path(word) for word in order["argv"]]
    try:
        process = subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
        )
    except OSError as error:
        code = 127 if isinstance(error, FileNotFoundError) else 126
        words = "{}: {}".format(order["argv"][0], error.strerror).encode("utf-8", "replace")
        return {"returncode": code, "stdout": 0}, words
    returncode = None
    try:
        out, err = process.communicate(body[end:], timeout=order["timeout"])
        returncode = process.returncode
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        try:
            out, err = process.communicate(timeout=LAST_WORDS)
        except subprocess.TimeoutExpired:  # what has left the group may hold the pipes open for ever
            out, err = b"", b""
        err += "no answer within {:g} s; killed".format(order["timeout"]).encode()
    return {"returncode": returncode, "stdout": len(out)}, out + err


def put(order: "Mapping[str, Any]", body: bytes) -> "Reply":
    """Write files, each whole by rename."""
    _put(order["files"], body)
    return {}, b""


def get(order: "Mapping[str, Any]", _body: bytes) -> "Reply":
    """Content of a file, or of its end."""
    path, limit = _path(order["path"]), order.get("limit")
    for last in (False, True):
        try:
            with open(path, "rb") as stream:
                if limit is not None:
                    stream.seek(max(0, stream.seek(0, os.SEEK_END) - limit))
                return {"found": True}, stream.read()
        except FileNotFoundError:
            break
        except OSError as error:
            # Replaced on another node meanwhile: the new file is found by its name.
            if error.errno != errno.ESTALE or last:
                raise
    return {"found": False}, b""


def remove(order: "Mapping[str, Any]", _body: bytes) -> "Reply":
    """Remove files and whole folders, without following links."""
    _remove(order["paths"])
    return {}, b""


def tree(order: "Mapping[str, Any]", _body: bytes) -> "Reply":
    """Files below a folder, by their names in it, with their sizes; links and what is no file are left out."""
    import stat

    top = _path(order["path"])
    found = {}
    for folder, _, names in os.walk(top):
        for name in names:
            path = os.path.join(folder, name)
            with contextlib.suppress(OSError):
                status = os.lstat(path)
                if stat.S_ISREG(status.st_mode):
                    found[os.path.relpath(path, top).decode("utf-8", "surrogateescape")] = status.st_size
    return {"there": os.path.isdir(top), "files": found}, b""


def read(order: "Mapping[str, Any]", _body: bytes) -> "Reply":
    """Pieces of files after each other: ``[path, offset, length]``, from the end where ``offset`` is negative."""
    lengths = []  # type: List[Any]
    pieces = []
    for text, offset, length in order["pieces"]:
        try:
            with open(_path(text), "rb") as stream:
                size = stream.seek(0, os.SEEK_END)
                stream.seek(offset if offset >= 0 else max(0, size + offset))
                pieces.append(stream.read(length))
                lengths.append(len(pieces[-1]))
        except FileNotFoundError:
            lengths.append(None)
    return {"lengths": lengths}, b"".join(pieces)


def look(order: "Mapping[str, Any]", body: bytes) -> "Reply":
    """The agent's look."""
    return {"look": _agent(body)["look"](order["request"])}, b""


def revoke(order: "Mapping[str, Any]", body: bytes) -> "Reply":
    """The agent's revoke."""
    return {"revoked": _agent(body)["revoke"](order["directory"], order["tag"])}, b""


REQUESTS = {
    "hello": hello,
    "run": run,
    "put": put,
    "get": get,
    "remove": remove,
    "tree": tree,
    "read": read,
    "look": look,
    "revoke": revoke,
}


def _agent(source: bytes) -> "Dict[str, Any]":
    names: "Dict[str, Any]" = {"__name__": "agent"}
    exec(compile(source, "agent.py", "exec"), names)  # noqa: S102 - our own file, its hash was checked
    return names


# --- files -----------------------------------------------------------------------------------------------------


def _remove(paths: "Sequence[str]") -> None:
    import shutil

    for path in map(_path, paths):
        if os.path.isdir(path) and not os.path.islink(path):
            shutil.rmtree(path, ignore_errors=True)
        else:
            with contextlib.suppress(OSError):
                os.unlink(path)


def _put(files: "Sequence[Tuple[str, int, int]]", body: bytes) -> int:
    """Write ``(path, length, mode)`` after each other out of ``body``; where the last one ends."""
    written: "List[Tuple[bytes, bytes]]" = []
    offset = 0
    try:
        for text, length, mode in files:
            folder, name = os.path.split(_path(text))
            os.makedirs(folder, 0o700, exist_ok=True)
            temporary = os.path.join(folder, b"." + name + b"." + os.urandom(6).hex().encode())
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
            with open(os.open(temporary, flags, mode), "wb") as stream:
                written.append((temporary, _path(text)))
                stream.write(body[offset : offset + length])
            offset += length
        while written:
            os.rename(*written[0])  # replaces a symbolic link, never what it points to
            del written[0]
    finally:
        for temporary, _ in written:
            os.unlink(temporary)
    return offset


# --- the exchange ----------------------------------------------------------------------------------------------


def answer(content: bytes) -> bytes:
    """Carry out the request ``content`` (a line of JSON, then bytes) and frame the reply."""
    head, _, body = content.partition(b"\n")
    order = json.loads(head.decode())
    try:
        reply, more = REQUESTS[order["verb"]](order, body)
        _remove(order.get("unwanted") or ())
    except OSError as error:
        name = error.filename
        path = _words(name) if isinstance(name, bytes) else str(name or "")
        reply, more = {"error": {"errno": error.errno, "message": error.strerror or str(error), "path": path}}, b""
    packed = json.dumps(reply).encode() + b"\n" + more
    marker = order["marker"].encode()
    digest = hashlib.sha256(packed).hexdigest().encode()
    return b"\n%s %d %s\n%s\n%s end\n" % (marker, len(packed), digest, packed, marker)


def main(source: "IO[bytes]", target: "IO[bytes]") -> int:
    """Serve one request."""
    import signal

    # A submit that has begun is to end, whatever becomes of the connection; a handler is not inherited.
    signal.signal(signal.SIGHUP, lambda *_: None)
    os.umask(0o077)
    try:
        length, digest = source.readline().split()
        content = source.read(int(length))
    except ValueError:
        content, digest = b"", b""
    if hashlib.sha256(content).hexdigest().encode() != digest:
        sys.stderr.write("survey: the request did not arrive whole\n")
        return TORN
    target.write(answer(content))
    target.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.stdin.buffer, sys.stdout.buffer))
