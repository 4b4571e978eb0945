//! Why bytes are not interpreted.

/// Why a stream is raw bytes from some offset on. For logs and counters: the bytes themselves go on unchanged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum RawReason {
    /// The first byte is that of a TLS handshake record (RFC 8446 §5.1).
    #[error("TLS")]
    Tls,
    /// The HTTP/2 connection preface, or a request line that claims HTTP/2 (RFC 9113 §3.4).
    #[error("HTTP/2")]
    Http2,
    /// No HTTP/1.0 or HTTP/1.1 start line.
    #[error("not HTTP/1.x")]
    NotHttp1,
    /// A head longer than [`MAX_HEAD`](super::MAX_HEAD).
    #[error("head longer than 64 KiB")]
    HeadTooLong,
    /// More header lines than [`MAX_HEADERS`](super::MAX_HEADERS).
    #[error("more than 256 header lines")]
    TooManyHeaders,
    /// A CR without LF or an LF without CR where a line ends with both (RFC 9112 §2.2).
    #[error("bare CR or LF")]
    BareLineEnd,
    /// A header line against the grammar: folded, with a space before the colon, with control bytes (RFC 9112 §5).
    #[error("malformed header line")]
    MalformedHeader,
    /// Content-Length that is not exactly one decimal number below 2^64 (RFC 9112 §6.3).
    #[error("ambiguous Content-Length")]
    ContentLength,
    /// Transfer-Encoding that is not exactly one `chunked` in an HTTP/1.1 message (RFC 9112 §6.1).
    #[error("Transfer-Encoding other than one `chunked` in HTTP/1.1")]
    TransferEncoding,
    /// Content-Length and Transfer-Encoding in one message (RFC 9112 §6.3, the classic of request smuggling).
    #[error("both Content-Length and Transfer-Encoding")]
    BothLengths,
    /// CONNECT with a body: what follows it is defined by nobody (RFC 9110 §9.3.6).
    #[error("CONNECT with a body")]
    ConnectWithBody,
    /// A chunk line, or the end of a chunk, against the grammar (RFC 9112 §7.1).
    #[error("malformed chunk")]
    MalformedChunk,
    /// A trailer line against the grammar, or a trailer section longer than [`MAX_HEAD`](super::MAX_HEAD).
    #[error("malformed trailer")]
    MalformedTrailer,
}
