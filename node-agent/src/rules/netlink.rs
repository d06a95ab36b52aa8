//! What the kernel's answers to route requests mean.

use nix::errno::Errno;

/// The loopback device has index 1 in every namespace.
pub(super) const LOOPBACK: u32 = 1;

/// The kernel's answer; `None` when it was not the kernel that refused.
pub(super) fn code(error: &rtnetlink::Error) -> Option<Errno> {
    match error {
        rtnetlink::Error::NetlinkError(message) => {
            message.code.map(|code| Errno::from_raw(-code.get()))
        }
        _ => None,
    }
}

/// Takes these answers of the kernel for success.
pub(super) fn unless(
    fine: &'static [Errno],
) -> impl Fn(rtnetlink::Error) -> Result<(), rtnetlink::Error> {
    move |error| {
        if code(&error).is_some_and(|c| fine.contains(&c)) { Ok(()) } else { Err(error) }
    }
}
