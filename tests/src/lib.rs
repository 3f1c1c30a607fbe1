//! Tests across crates: what the workspace as a whole promises. There is nothing here but `tests/`.
