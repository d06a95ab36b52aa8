//! What the kernel's answers to route requests mean.

/// The loopback device has index 1 in every namespace.
pub(super) const LOOPBACK: u32 = 1;

pub(super) const ENOENT: i32 = 2;
pub(super) const ESRCH: i32 = 3;
pub(super) const EEXIST: i32 = 17;
pub(super) const ENODEV: i32 = 19;
pub(super) const EOPNOTSUPP: i32 = 95;
pub(super) const ENETDOWN: i32 = 100;

/// The kernel's answer; `None` when it was not the kernel that refused.
pub(super) fn code(error: &rtnetlink::Error) -> Option<i32> {
    match error {
        rtnetlink::Error::NetlinkError(message) => message.code.map(|code| -code.get()),
        _ => None,
    }
}

/// Takes these answers of the kernel for success.
pub(super) fn unless(
    fine: &'static [i32],
) -> impl Fn(rtnetlink::Error) -> Result<(), rtnetlink::Error> {
    move |error| {
        if code(&error).is_some_and(|c| fine.contains(&c)) { Ok(()) } else { Err(error) }
    }
}
