//! napi-rs bindings: converts, decides nothing.
