//! How our ends of HTTP/2 connections are set up. What a peer is told comes from the peer on the other side; guards
//! that would end a connection for what is everyday life are off.

use super::greeting::PeerSettings;
use h2::{client, server};
use std::ops::RangeInclusive;

/// What one stream may have in flight on one side, so what a stalled stream costs at most: this, and
/// [`SEND_BUFFER`] on the other side. A peer's own window counts where it is between these; below, windows that a
/// peer opens later by WINDOW_UPDATE could not be mirrored. Bytes.
const STREAM_WINDOW: RangeInclusive<u32> = 65_535..=256 << 10;
/// The largest there is (RFC 9113 §6.9.1): stalled streams must never stall the others. Bytes.
const CONNECTION_WINDOW: u32 = i32::MAX as u32;
/// What one stream holds for a peer that does not read. Bytes.
const SEND_BUFFER: usize = 128 << 10;
/// Streams that were cancelled before they were looked at. All of them are in what was read at one go.
const PENDING_RESETS: usize = 1 << 16;
/// Streams cancelled by us, remembered so that what is still under way to them is known to be late. What is
/// forgotten is answered with STREAM_CLOSED.
const REMEMBERED_RESETS: usize = 1024;
/// As in the tunnel: some windows full of one-byte frames. h2 ends a connection on which more small DATA frames than
/// that wait to be read, counting 256 minus its size for each.
const SMALL_FRAME_BUDGET: usize = 4 * 256 * (256 << 10);

/// Our end towards the client. It is told what the app said.
pub(super) fn toward_client(app: &PeerSettings) -> server::Builder {
    let mut builder = server::Builder::new();
    builder
        .initial_window_size(stream_window(app))
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buffer_size(SEND_BUFFER)
        .max_concurrent_reset_streams(REMEMBERED_RESETS)
        .max_pending_accept_reset_streams(PENDING_RESETS)
        .max_local_error_reset_streams(None)
        .data_frame_budget(SMALL_FRAME_BUDGET);
    if let Some(max) = app.max_concurrent_streams {
        builder.max_concurrent_streams(max);
    }
    if let Some(max) = app.max_header_list_size {
        builder.max_header_list_size(max);
    }
    if app.enable_connect_protocol {
        builder.enable_connect_protocol();
    }
    builder
}

/// Our end towards an app or a local server. It is told what the client said.
pub(super) fn toward_server(client: &PeerSettings) -> client::Builder {
    let mut builder = client::Builder::new();
    builder
        .initial_window_size(stream_window(client))
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buffer_size(SEND_BUFFER)
        .enable_push(false)
        .max_concurrent_reset_streams(REMEMBERED_RESETS)
        .max_pending_accept_reset_streams(PENDING_RESETS)
        .max_local_error_reset_streams(None)
        .data_frame_budget(SMALL_FRAME_BUDGET);
    if let Some(max) = client.max_header_list_size {
        builder.max_header_list_size(max);
    }
    builder
}

fn stream_window(peer: &PeerSettings) -> u32 {
    let window = peer.initial_window_size.unwrap_or(*STREAM_WINDOW.start());
    window.clamp(*STREAM_WINDOW.start(), *STREAM_WINDOW.end())
}
