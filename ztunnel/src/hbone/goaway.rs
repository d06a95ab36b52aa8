//! How polite ends of HTTP/2 connections are told from others.

use std::error::Error;

/// Is one of the causes of `error` that the other end closes the connection in good
/// order? For those who talk HTTP/2 through a library and may not look into it.
pub(crate) fn graceful_goaway(error: &(dyn Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(error) = error.downcast_ref::<h2::Error>() {
            return error.is_go_away() && error.reason() == Some(h2::Reason::NO_ERROR);
        }
        next = error.source();
    }
    false
}
