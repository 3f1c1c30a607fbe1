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

/// Images of one prompt.
pub(crate) fn images(text: &str) -> Result<u32, String> {
    within(1..=10_000, "all of them are generated")(text)
}

/// Previews of an image.
pub(crate) fn previews(text: &str) -> Result<u32, String> {
    within(0..=100, "each takes as long as the end of an image")(text)
}

/// Samples that are computed together.
pub(crate) fn batch(text: &str) -> Result<u32, String> {
    within(1..=1024, "a batch is held in memory")(text)
}

/// The rank of a LoRA.
pub(crate) fn rank(text: &str) -> Result<u32, String> {
    within(1..=4096, "no layer of a U-Net has a larger one")(text)
}

/// A quantile that cuts off few numbers.
pub(crate) fn quantile(text: &str) -> Result<f64, String> {
    within(0.5..=1.0, "less would cut off most of what was learned")(text)
}

/// Threads that compute.
pub(crate) fn threads(text: &str) -> Result<i32, String> {
    within(1..=1024, "each is one of the system's")(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_out_of_bounds_is_told_the_bounds_and_their_reason() {
        assert_eq!(images("3"), Ok(3));
        for text in ["0", "-1", "10001", "4294967295", "18446744073709551616", "NaN", "", "1e3"] {
            let said = images(text).unwrap_err();
            assert!(said.ends_with("it must be from 1 to 10000: all of them are generated"), "{text}: {said}");
        }
        assert!(within(0.0..=1.0, "")("NaN").is_err() && within(0.0..=1.0, "")("inf").is_err());
    }
}
