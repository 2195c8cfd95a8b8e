//! Numbers as people read them.

/// Formats a time in its two largest units: `3d4h`, `5m2s`, `12s`, `450ms`.
pub(crate) fn duration(seconds: f64) -> String {
    if seconds < 0.9995 {
        return format!("{:.0}ms", seconds.max(0.0) * 1000.0);
    }
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "positive, and a cast saturates"
    )]
    let whole = seconds.round() as u64;
    let (days, hours) = (whole / 86_400, whole / 3600 % 24);
    let (minutes, seconds) = (whole / 60 % 60, whole % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => format!("{minutes}m{seconds}s"),
        (0, _, _) => format!("{hours}h{minutes}m"),
        _ => format!("{days}d{hours}h"),
    }
}

/// Formats a short time with three digits: `812 us`, `1.24 ms`, `2.00 s`.
pub(crate) fn latency(seconds: f64) -> String {
    let (value, unit) = match seconds {
        it if it < 1e-3 => (it * 1e6, "us"),
        it if it < 1.0 => (it * 1e3, "ms"),
        it => (it, "s"),
    };
    match value {
        it if it < 9.995 => format!("{it:.2} {unit}"),
        it if it < 99.95 => format!("{it:.1} {unit}"),
        it => format!("{it:.0} {unit}"),
    }
}

/// Formats a number of bytes: `512 B`, `1.2 MiB`.
pub(crate) fn bytes(count: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if count < 1024 {
        return format!("{count} B");
    }
    #[allow(clippy::cast_precision_loss, reason = "two digits are shown")]
    let mut value = count as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1023.95 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_formatted_with_short_units() {
        let all = [
            (0.0, "0ms"),
            (0.4504, "450ms"),
            (0.9996, "1s"),
            (59.4, "59s"),
            (59.6, "1m0s"),
            (302.0, "5m2s"),
            (3_600.0, "1h0m"),
            (273_600.0, "3d4h"),
            (40_000_000.0, "462d23h"),
        ];
        for (seconds, text) in all {
            assert_eq!(duration(seconds), text);
        }
        let all = [
            (0.000_000_5, "0.50 us"),
            (0.000_812, "812 us"),
            (0.001_24, "1.24 ms"),
            (0.0456, "45.6 ms"),
            (2.0, "2.00 s"),
        ];
        for (seconds, text) in all {
            assert_eq!(latency(seconds), text);
        }
        let all = [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1_258_291, "1.2 MiB"),
            (1_048_575, "1.0 MiB"),
            (u64::MAX, "16777216.0 TiB"),
        ];
        for (count, text) in all {
            assert_eq!(bytes(count), text);
        }
    }
}
