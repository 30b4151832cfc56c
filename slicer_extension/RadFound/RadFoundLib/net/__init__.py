"""The HTTP side: addresses, one request at a time, what a server replies. Knows neither Qt nor MRML."""
