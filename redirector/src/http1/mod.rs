//! HTTP/1.x framing, sans-IO: where each message head and body begins and ends in a byte stream.
