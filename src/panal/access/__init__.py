"""Who may do what: users, groups, roles, permissions, tokens, tickets, login, audit, realms, pools."""

from panal.access.acl import change_acl
from panal.access.authenticate import authenticate
from panal.access.bootstrap import bootstrap
from panal.access.context import Access
from panal.access.groups import create_group, delete_group, update_group
from panal.access.login import login
from panal.access.pools import create_pool, delete_pool, forget_guest, forget_storage, update_pool
from panal.access.pools import join as join_pool
from panal.access.rights import UserRights
from panal.access.roles import create_role, delete_role, update_role
from panal.access.sessions import end_all, log_out
from panal.access.tokens import create_token, delete_token, update_token
from panal.access.users import create_user, delete_user, set_password, update_user

__all__ = [
    "Access", "UserRights", "authenticate", "bootstrap", "change_acl", "create_group", "create_pool", "create_role",
    "create_token", "create_user", "delete_group", "delete_pool", "delete_role", "delete_token", "delete_user", "end_all",
    "forget_guest", "forget_storage", "join_pool", "log_out", "login", "set_password", "update_group", "update_pool",
    "update_role", "update_token", "update_user",
]  # fmt: skip
