"""Other people's clients drive a real node over HTTPS, unchanged."""
