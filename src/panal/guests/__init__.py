"""Virtual machines (later containers): configuration model, verbs, claims, drivers."""
