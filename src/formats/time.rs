//! Moments, for people.

/// Seconds since the epoch as `2026-11-24 13:50:00 UTC`, in the calendar of today for any number.
pub fn utc(seconds: u64) -> String {
    let (days, second) = (seconds / 86400, seconds % 86400);
    // Eras of 400 years that begin on a first of March; 719468 days lie between that of year 0 and the epoch.
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    let year = era * 400 + year + next;
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} UTC")
}

#[cfg(test)]
mod tests {
    use super::utc;

    /// By `date -u -d @SECONDS`.
    #[test]
    fn agrees_with_date() {
        for (seconds, text) in [
            (0, "1970-01-01 00:00:00 UTC"),
            (951_782_400, "2000-02-29 00:00:00 UTC"),
            (951_868_799, "2000-02-29 23:59:59 UTC"),
            (951_868_800, "2000-03-01 00:00:00 UTC"),
            (1_790_000_000, "2026-09-21 14:13:20 UTC"),
            (4_107_542_400, "2100-03-01 00:00:00 UTC"),
            (4_133_980_799, "2100-12-31 23:59:59 UTC"),
        ] {
            assert_eq!(utc(seconds), text);
        }
        utc(u64::MAX);
    }
}
