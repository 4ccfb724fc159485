//! The `linger` command: exit codes only.

fn main() {}
