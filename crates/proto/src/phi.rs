//! placeholder until the tools branch lands

/// Model of arrival times.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Model {
    /// Normal distribution.
    Normal,
    /// Exponential distribution.
    Exponential,
    /// Pekko's logistic approximation.
    Pekko,
}
