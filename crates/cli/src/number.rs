//! Numbers on the command line, within bounds.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::str::FromStr;

/// A parser for clap of numbers in `range`, which says why there are bounds.
pub(crate) fn within<T>(
    range: RangeInclusive<T>,
    reason: &'static str,
) -> impl Fn(&str) -> Result<T, String> + Clone + Send + Sync + 'static
where
    T: FromStr<Err: Display> + PartialOrd + Display + Clone + Send + Sync + 'static,
{
    move |text| {
        let (least, most) = range.clone().into_inner();
        let bounds = || format!("it must be from {least} to {most}: {reason}");
        // A number that the type cannot hold is out of bounds too.
        let value: T = text.parse().map_err(|error| format!("{error}; {}", bounds()))?;
        if range.contains(&value) { Ok(value) } else { Err(bounds()) }
    }
}

/// How many pictures of one prompt may be asked for.
pub(crate) const IMAGES: RangeInclusive<u32> = 1..=10_000;
/// Why.
pub(crate) const IMAGES_REASON: &str = "all of them are drawn";

/// How many pictures may be drawn at once.
pub(crate) const BATCH: RangeInclusive<u32> = 1..=1024;
/// Why.
pub(crate) const BATCH_REASON: &str = "a batch is held in memory";

/// How many threads may compute.
pub(crate) const THREADS: RangeInclusive<i32> = 1..=1024;
/// Why.
pub(crate) const THREADS_REASON: &str = "each is one of the system's";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_out_of_bounds_is_told_the_bounds_and_their_reason() {
        let parse = within(IMAGES, IMAGES_REASON);
        assert_eq!(parse("3"), Ok(3));
        for text in ["0", "-1", "10001", "4294967295", "18446744073709551616", "NaN", "", "1e3"] {
            let said = parse(text).unwrap_err();
            assert!(said.ends_with("it must be from 1 to 10000: all of them are drawn"), "{text}: {said}");
        }
        assert!(within(0.0..=1.0, "")("NaN").is_err() && within(0.0..=1.0, "")("inf").is_err());
    }
}
