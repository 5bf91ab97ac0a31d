"""What can be wrong with the way to a site, in words and with what to do about it.

::

    Paused                       4
     +-- LoginNeeded             4   a person must log in; nothing is tried again by itself
     +-- HostKeyRefused          4   the host's key is unknown or another one than before
     +-- Unreachable             4   no connection now; a running driver waits and tries again
     +-- SiteUnusable            4   connected, but no Python there, or no room
"""

from __future__ import annotations

import errno
import re
from collections.abc import Mapping

from orchestrator.errors import Paused, SurveyError, UsageError

__all__ = ["HostKeyRefused", "LoginNeeded", "SiteUnusable", "Unreachable", "file_trouble", "host_key", "ssh_trouble"]


class LoginNeeded(Paused):
    """The site wants a person to log in; the message says what to type."""


class HostKeyRefused(Paused):
    """A host on the way shows a key that is not the known one; nothing was sent to it."""


class Unreachable(Paused):
    """There is no connection at the moment, and nobody was refused anything."""


class SiteUnusable(Paused):
    """The site is reached and cannot be worked with as it is."""


_FINGERPRINT = re.compile(r"Server host key: (\S+) (SHA256:\S+)")
_NOISE = re.compile(r"^(debug\d:|OpenSSH_|Authenticated to|@+\s|@+$|Warning: Permanently)")


def host_key(site: str, host: str, fingerprint: str, *, changed: bool, how: str) -> HostKeyRefused:
    """The error for a host key that is not accepted; ``how`` says how it can be."""
    seen = f"it shows {fingerprint}" if fingerprint else "ssh does not say which it shows"
    if changed:
        return HostKeyRefused(
            f"site {site}: the host key of {host} is another one than before ({seen}); nothing was sent",
            hint=f"Somebody may be between you and {host}. Ask the site whether it changed its key; "
            "only then take the old line out of known_hosts.",
        )
    return HostKeyRefused(
        f"site {site}: the host key of {host} is not known ({seen}); nothing was sent",
        hint=f"Compare it with what the site publishes, then {how}.",
    )


def ssh_trouble(site: str, host: str, stderr: str) -> SurveyError:
    """Read what OpenSSH said (``ssh -v``) of a connection that did not come about."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip() and not _NOISE.match(line)]
    # What ssh says last where a jump host failed is that it knows nothing; where its configuration is bad, the sum.
    telling = [line for line in lines if "UNKNOWN port" not in line and "terminating," not in line]
    first = [line for line in telling if line.startswith(("ssh: ", "channel ", "stdio forwarding"))]
    last = (first or telling[-1:] or lines or ["ssh ended without a word"])[0]
    text = "\n".join(lines)
    shown = _FINGERPRINT.findall(stderr)
    fingerprint = shown[-1][1] if shown else ""
    if "REMOTE HOST IDENTIFICATION HAS CHANGED" in stderr or "host key has just been changed" in text:
        return host_key(site, host, fingerprint, changed=True, how="")
    if "Host key verification failed" in text or "host key is known for" in text:
        return host_key(site, host, fingerprint, changed=False, how=f"take it with `survey login --site {site}`")
    if match := re.search(r"Could not resolve hostname (\S+?):? ", text + " "):
        return UsageError(
            f"site {site}: there is no host {match[1]!r} ({last})",
            hint="Look at transport.host of the site file, at HostName and ProxyJump in ~/.ssh/config, and at the network.",
        )
    if re.search(
        r"Bad configuration option|terminating, \d+ bad|Invalid -J|[Bb]ad (?:jump|proxy)|no argument after keyword",
        text,
    ):
        return UsageError(
            f"site {site}: ssh refuses its configuration: {last}", hint="Mend ~/.ssh/config; try `ssh` by hand."
        )
    if re.search(
        r"Permission denied|Too many authentication failures|no more authentication methods", text, re.IGNORECASE
    ):
        return login_needed(site, host, last)
    if "UNPROTECTED PRIVATE KEY" in text:
        return UsageError(f"site {site}: ssh refuses a key file that others may read", hint="chmod 600 the file.")
    return Unreachable(
        f"site {site}: no connection to {host}: {last}", hint="Look at the network, the VPN, and at the site's news."
    )


def login_needed(site: str, host: str, words: str) -> LoginNeeded:
    """The error for a login that only a person can make."""
    return LoginNeeded(
        f"site {site}: {host} lets nobody in without a person's help ({words})",
        hint=f"Type: survey login --site {site}   then run the study again; nothing is lost, and jobs run on.",
    )


_NO_ROOM: Mapping[int, str] = {errno.ENOSPC: "no space left", errno.EDQUOT: "your quota is used up"}
_NO_PLACE: Mapping[int, str] = {
    errno.EACCES: "not allowed",
    errno.EPERM: "not allowed",
    errno.EROFS: "the file system cannot be written",
    errno.ENOENT: "there is no such place",
    errno.ENOTDIR: "a part of the path is a file",
    errno.ENAMETOOLONG: "the name is too long",
}


def file_trouble(site: str, number: int | None, message: str, path: str) -> Exception:
    """The error for a file that could not be written or read on the site's side; ``site`` is empty for this machine."""
    where = ": ".join(filter(None, (site and f"site {site}", path))) or "this machine"
    if number is not None and number in _NO_ROOM:
        return SiteUnusable(
            f"{where}: {_NO_ROOM[number]} ({message})",
            hint="Make room there, then run the study again; nothing is lost.",
        )
    if number is not None and number in _NO_PLACE:
        return UsageError(
            f"{where}: {_NO_PLACE[number]} ({message})",
            hint="Set `work_root:` in the site file to a folder of yours there.",
        )
    return OSError(number or errno.EIO, message, path)
