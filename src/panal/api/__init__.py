"""The API: method table, checks, dispatch, one file per noun."""
