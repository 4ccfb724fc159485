//! Passwords: the threads that hash and verify them, and how often somebody may try.

pub mod login_limiter;
pub mod password;
pub mod pool;
