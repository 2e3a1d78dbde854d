//! Links the addon as Node.js wants it.

fn main() {
    napi_build::setup();
}
