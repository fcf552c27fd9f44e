"""A small blocking client of our API, and the packaged method table; fast to import (no third-party module)."""
