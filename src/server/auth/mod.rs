//! Passwords: the threads that hash and verify them, and how often somebody may try.

mod cache;
pub mod login_limiter;
pub mod password;
pub mod pool;
