//! The limit of open files.

/// Raises the soft limit of open files to the hard limit. Returns the hard limit.
///
/// Each session is an open file, and the soft limit is often 1024.
#[cfg(target_os = "linux")]
#[allow(unsafe_code, reason = "no dependency wraps setrlimit")]
pub(crate) fn raise_limit() -> std::io::Result<u64> {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: the pointer is to a valid rlimit, for the length of the call.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) } != 0 {
        return Err(std::io::Error::last_os_error());
    }
    limit.rlim_cur = limit.rlim_max;
    // SAFETY: as above.
    if unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) } != 0 {
        return Err(std::io::Error::last_os_error());
    }
    Ok(limit.rlim_cur)
}

/// Other systems have no such limit to raise.
#[cfg(not(target_os = "linux"))]
pub(crate) fn raise_limit() -> std::io::Result<u64> {
    Ok(u64::MAX)
}
