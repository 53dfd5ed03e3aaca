"""Who may do what at the admin door: the kernel's word on the peer becomes a role, and a role opens commands.

The socket's file mode decides who may connect at all (a reader); changing things asks for more.
"""

from __future__ import annotations

import grp
import os

from hyperllamactl.protocol.base import Command, Role
from hyperllamad.core.errors import NotPermittedError
from hyperllamad.listen import Peer


class Roles:
    """The rule, with the admin group looked up once: a name that appears later needs a restart."""

    def __init__(self, group: str) -> None:
        self.group = group
        self._uids = frozenset({0, os.getuid()})
        try:
            self._gid: int | None = grp.getgrnam(group).gr_gid
        except KeyError:
            self._gid = None

    def of(self, peer: Peer | None) -> Role:
        """ADMIN for root, the daemon's own user and members of the group; somebody unknown is a reader."""
        if peer is None:
            return Role.READER
        member = self._gid is not None and (self._gid == peer.gid or self._gid in peer.groups)
        return Role.ADMIN if peer.uid in self._uids or member else Role.READER

    def check(self, peer: Peer | None, name: str, command: type[Command]) -> None:
        """Raises NotPermittedError for a reader who asks for an administrator's command."""
        if command.role is Role.ADMIN and self.of(peer) is not Role.ADMIN:
            hint = f"become a member of the group {self.group} (sudo usermod -aG {self.group} $USER), or use sudo"
            raise NotPermittedError(f"'{name}' is for administrators", hint=hint)
