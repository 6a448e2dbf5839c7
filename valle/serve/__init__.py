"""The speech server: HTTP, WebSocket and a page, over one model and one thread that decodes."""
