//! Numbers of the system, whose sizes differ from one processor to another.

use std::time::Duration;

/// The longest wait that the kernel is asked for: 68 years. A `time_t` has 32 bits on some processors.
pub(crate) const LONGEST_WAIT: Duration = Duration::from_secs(i32::MAX as u64);

/// Converts a number into another type. `most` stands for one that does not fit.
pub(crate) fn clamped<T, U: TryFrom<T>>(number: T, most: U) -> U {
    U::try_from(number).unwrap_or(most)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_the_most_and_is_not_cut() {
        assert_eq!(clamped(5_u64 << 30, u32::MAX), u32::MAX);
        assert_eq!(clamped(7_u64, u32::MAX), 7);
        assert_eq!(i32::try_from(LONGEST_WAIT.as_secs()), Ok(i32::MAX));
    }
}
