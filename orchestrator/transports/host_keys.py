"""Which host keys paramiko may meet: those in known_hosts, and the one that the user has named."""

from __future__ import annotations

import os
from collections.abc import Collection

import paramiko

from orchestrator.errors import UsageError
from orchestrator.transports.route import Hop
from orchestrator.transports.trouble import host_key

__all__ = ["KnownHosts"]


class KnownHosts:
    """What is known of one hop's keys.

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
        self._keys = paramiko.HostKeys()
        for path in hop.known_hosts:
            try:
                self._keys.load(path)
            except FileNotFoundError:
                continue
            except (OSError, UnicodeDecodeError) as error:
                raise UsageError(f"site {site}: {path} cannot be read: {error}") from error

    def preferred(self, offered: Collection[str]) -> tuple[str, ...]:
        """Order kinds of keys so that the host shows one that is known, if it has it."""
        known = set(self._keys.lookup(self._hop.known_as) or ())
        if "ssh-rsa" in known:
            known |= {"rsa-sha2-512", "rsa-sha2-256"}  # signatures of the same key
        return tuple(sorted(offered, key=lambda kind: kind not in known))

    def check(self, key: paramiko.PKey) -> None:
        """Accept the key that the host has shown, or raise `HostKeyRefused`."""
        entry = self._keys.lookup(self._hop.known_as)
        shown = str(key.fingerprint)
        if entry is None:
            if shown not in self._accepted:
                how = f"run again with --accept-host-key {shown}"
                raise host_key(self._site, self._hop.known_as, shown, changed=False, how=how)
            self._add(key)
            return
        # A host that has only keys of other kinds to show than before is another host to us.
        if entry.get(key.get_name()) != key:
            raise host_key(self._site, self._hop.known_as, shown, changed=True, how="")

    def _add(self, key: paramiko.PKey) -> None:
        path = self._hop.known_hosts[0]
        os.makedirs(os.path.dirname(path) or ".", 0o700, exist_ok=True)
        line = f"{self._hop.known_as} {key.get_name()} {key.get_base64()}\n"
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "a", encoding="utf-8") as stream:
            stream.write(line)
