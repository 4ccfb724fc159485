//! Main's decisions, entry by entry, on a made-up store and with made-up workers.
//!
//! | file | guards |
//! |---|---|
//! | `logins` | who is online after logins that meet: takeover, refusal, the same channel again |
//! | `messages` | where a message goes when its receiver comes and goes, and in what order |
//! | `fan_out` | how a chat to a large group is handed out over many turns |
//! | `faults` | what a failed transaction leaves: nothing accepted in silence, nothing owed forgotten |
//! | `closing` | when a channel's fd is asked for |
//! | `expiry` | what is removed for its age, and how fast |
//! | `clock` | that nothing gets older or younger when the wall clock is set |
//! | `presence` | what friends are told when a user comes or goes, and when |

mod clock;
mod closing;
mod expiry;
mod fan_out;
mod faults;
mod lists;
mod logins;
mod messages;
mod presence;
