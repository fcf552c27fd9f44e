"""What a realm type can do. Every driver checks a password in about the same time whether there is such a user or not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from panal.access.context import Access
    from panal.access.model import User
    from panal.cluster.store import Op


class RealmDriver(Protocol):
    """One type: pam, pve, later ldap, ad, openid."""

    async def check(self, access: Access, user: User | None, password: str) -> bool:
        """Whether this is the user's password; None stands for a user that does not exist: work as long, say no.

        Raises Unavailable when the back end does not answer.
        """

    async def new_password(self, access: Access, userid: str, uid: str, password: str) -> list[Op]:
        """Set it: operations to commit with the caller's own txn, or none when the back end holds it. Failed if it cannot."""

    def deleted(self, userid: str) -> list[Op]:
        """Operations that remove what is kept of the user."""
