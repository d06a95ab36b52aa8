//! How many descriptors the process may have: each captured pod takes four, eight with its
//! name server, and a service manager's usual limit of 1024 is for programs that wait with `select(2)`.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Raises the limit to what the system allows us.
///
/// # Errors
/// As `setrlimit(2)`.
pub fn raise_limit() -> nix::Result<u64> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if soft < hard {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    }
    Ok(hard)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_what_the_system_allows() {
        let raised = raise_limit().unwrap();
        assert_eq!(getrlimit(Resource::RLIMIT_NOFILE).unwrap(), (raised, raised));
    }
}
