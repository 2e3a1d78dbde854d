//! hearsay-runtime
