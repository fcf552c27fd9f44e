"""Who may do what: users, groups, roles, permissions, tokens, tickets, login, audit, realms, pools."""
