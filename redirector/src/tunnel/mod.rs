//! The tunnel between agent and developer: identity, join tokens, TLS, byte streams over HTTP/2.
