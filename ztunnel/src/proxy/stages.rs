//! A connection's two stages: it begins, which needs much memory for a short time, and then
//! it is carried, which needs little for long.

use futures_util::FutureExt as _;
use futures_util::future::OptionFuture;

/// Begins a connection and carries what came of it to its end.
pub(super) fn begin_then<Open, Carried: Future>(
    begin: impl Future<Output = Option<Open>>,
    carry: impl FnOnce(Open) -> Carried,
) -> impl Future<Output = ()> {
    // Boxed: what is needed to begin must not be kept while bytes are carried.
    Box::pin(begin).then(|open| OptionFuture::from(open.map(carry))).map(drop)
}
