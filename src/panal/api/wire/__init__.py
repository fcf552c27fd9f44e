"""The half that the web front shares with the daemon: frames on the socket between them, answers on the wire."""
