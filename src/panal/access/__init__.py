"""Who may do what: users, groups, roles, permissions, tokens, tickets, login, audit, realms, pools."""

from panal.access.authenticate import authenticate
from panal.access.bootstrap import bootstrap
from panal.access.context import Access
from panal.access.rights import UserRights

__all__ = ["Access", "UserRights", "authenticate", "bootstrap"]
