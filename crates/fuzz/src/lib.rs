//! hearsay-fuzz
