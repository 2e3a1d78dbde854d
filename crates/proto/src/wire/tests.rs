//! Sizes and strictness of the wire format.
