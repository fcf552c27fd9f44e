"""panal-web: composition root of the unprivileged front. TLS, HTTP, multipart, WebSockets, rate limits."""
