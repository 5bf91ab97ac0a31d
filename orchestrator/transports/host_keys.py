"""Which host keys paramiko may meet: those in known_hosts, and the one that the user has named."""

from __future__ import annotations

import fnmatch
import os
from collections.abc import Collection, Iterator, Sequence

import paramiko
from paramiko.hostkeys import HostKeyEntry

from orchestrator.errors import UsageError
from orchestrator.transports.route import Hop
from orchestrator.transports.trouble import host_key

__all__ = ["KnownHosts"]


class KnownHosts:
    """What is known of one hop's keys.

    A name may have several keys of one kind: an alias of many login nodes has one for each.

    Parameters
    ----------
    site : str
        The site's name, for messages.
    accepted : collection of str
        Fingerprints (``SHA256:...``) that an unknown host may show; never a known host that shows another key.
    """

    def __init__(self, site: str, hop: Hop, accepted: Collection[str]) -> None:
        self._site = site
        self._hop = hop
        self._accepted = accepted
        self._keys: list[paramiko.PKey] = []
        self._revoked: list[paramiko.PKey] = []
        for path in hop.known_hosts:
            try:
                with open(path, encoding="utf-8") as stream:
                    for revoked, key in _keys(stream.read().splitlines(), hop.known_as):
                        (self._revoked if revoked else self._keys).append(key)
            except FileNotFoundError:
                continue
            except (OSError, UnicodeDecodeError) as error:
                raise UsageError(f"site {site}: {path} cannot be read: {error}") from error

    def preferred(self, offered: Collection[str]) -> tuple[str, ...]:
        """Order kinds of keys so that the host shows one that is known, if it has it."""
        known = {key.get_name() for key in self._keys}
        if "ssh-rsa" in known:
            known |= {"rsa-sha2-512", "rsa-sha2-256"}  # signatures of the same key
        return tuple(sorted(offered, key=lambda kind: kind not in known))

    def check(self, key: paramiko.PKey) -> None:
        """Accept the key that the host has shown, or raise `HostKeyRefused`."""
        shown = str(key.fingerprint)
        # A host that has only other keys to show than before is another host to us.
        if key in self._revoked or (self._keys and key not in self._keys):
            raise host_key(self._site, self._hop.known_as, shown, changed=True, how="")
        if self._keys:
            return
        if shown not in self._accepted:
            how = f"type: survey login --site {self._site} --accept-host-key {shown}"
            raise host_key(self._site, self._hop.known_as, shown, changed=False, how=how)
        self._add(key)

    def _add(self, key: paramiko.PKey) -> None:
        path = self._hop.known_hosts[0]
        os.makedirs(os.path.dirname(path) or ".", 0o700, exist_ok=True)
        line = f"{self._hop.known_as} {key.get_name()} {key.get_base64()}\n"
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "a", encoding="utf-8") as stream:
            stream.write(line)


def _keys(lines: Sequence[str], name: str) -> Iterator[tuple[bool, paramiko.PKey]]:
    """Keys of known_hosts' lines for ``name``, and whether each is revoked; sshd(8) describes the form."""
    for line in lines:
        words = line.split()
        marker = words.pop(0) if words and words[0].startswith("@") else ""
        # Certificates are beyond paramiko's client: an authority's key vouches for nothing here.
        if marker not in ("", "@revoked") or len(words) < 3 or words[0].startswith("#"):
            continue
        if not _is_meant(words[0].split(","), name):
            continue
        try:
            entry = HostKeyEntry.from_line(" ".join(words))
        except paramiko.SSHException:
            continue
        if entry is not None:
            yield marker == "@revoked", entry.key


def _is_meant(patterns: Sequence[str], name: str) -> bool:
    meant = False
    for pattern in patterns:
        if pattern.startswith("|1|"):
            meant = meant or paramiko.HostKeys.hash_host(name, pattern) == pattern
        elif fnmatch.fnmatchcase(name.lower(), pattern.lstrip("!").lower().replace("[", "[[]")):
            if pattern.startswith("!"):
                return False
            meant = True
    return meant
