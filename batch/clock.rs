//! One monotonic clock from the kernel (boot time), and its offset to wall time.

use jiff::Timestamp;

/// Wall time minus boot time, in nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct WallOffset(pub i64);

impl WallOffset {
    /// Wall time of a record's boot time, in nanoseconds since 1970.
    #[must_use]
    pub fn wall_ns(self, boot_ns: u64) -> i64 {
        i64::try_from(boot_ns).unwrap_or(i64::MAX).saturating_add(self.0)
    }
}

/// RFC 3339 with nanoseconds, UTC.
#[must_use]
pub fn rfc3339(wall_ns: i64) -> String {
    Timestamp::from_nanosecond(i128::from(wall_ns)).map_or_else(|_| String::new(), |time| format!("{time:.9}"))
}

#[cfg(test)]
mod tests {
    #[test]
    fn times_are_written_in_full() {
        assert_eq!(super::rfc3339(1_700_000_000_000_000_001), "2023-11-14T22:13:20.000000001Z");
    }
}
